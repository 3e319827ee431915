"""Load pictures of two domains, from two files or from the halves of one, and say what is wrong with them."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.data.image_reader import PILReader
from monai.transforms.io.array import LoadImage
from monai.transforms.transform import MapTransform

__all__ = ["LoadPicturesd"]


def _rgb(image: Any) -> Any:
    """Decoded, so that a truncated file is an error and not a grey area."""
    with image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"more than 8 bits a channel, PIL's mode {image.mode}, which would be cut off")
        return image.convert("RGB")


class LoadPicturesd(MapTransform):
    """Replace paths by pictures, float32 ``MetaTensor`` (3, rows, columns) in [0, 255].

    MONAI's ``PILReader`` does the reading (JPEG, PNG, BMP; converted to RGB), with rows first, as pictures are shown.

    Args:
        keys: domain X, then domain Y, as in :func:`~monai_invertible.data.paired_images_datalist`. An item may lack
            one. If its "side_by_side" is true, X is the left half of its file and Y the right half of its own.

    Raises:
        FileNotFoundError: if a file does not exist. OSError: if it cannot be read.
        ValueError: if the width of a picture of two halves is odd.
    """

    def __init__(self, keys: Sequence[str] = ("x", "y")) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.reader = PILReader(_rgb, reverse_indexing=False)
        self.loader = LoadImage(image_only=True, ensure_channel_first=True)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        pictures: dict[Any, Any] = {}
        for key in self.key_iterator(d):
            path = d[key]
            if path not in pictures:
                pictures[path] = self._load(path)
            d[key] = self._half(path, pictures[path], self.keys.index(key)) if d.get("side_by_side") else pictures[path]
        return d

    def _load(self, path: Any) -> Any:
        if not os.path.isfile(path):
            raise FileNotFoundError(f"{path}: this picture does not exist. Restore it, or list again.")
        try:
            picture: Any = self.loader(path, self.reader)  # no other reader: they leave damaged files open
        except MemoryError:
            raise
        except Exception as error:  # PIL's decoders have no common class of errors
            cause = " ".join(str(error).split())[:200] or type(error).__name__
            raise OSError(
                f"{path}: this picture cannot be read ({cause}). If its download or copy is incomplete, fetch it "
                "again; if it has more than 8 bits, scale it."
            ) from error
        return picture

    @staticmethod
    def _half(path: Any, picture: Any, which: int) -> Any:
        columns = picture.shape[-1]
        if columns % 2:
            raise ValueError(
                f"{path}: two pictures side by side must have an even width, got {columns} columns. Take the original "
                "file, or save the two pictures in separate folders (trainA, trainB)."
            )
        return picture[..., which * columns // 2 : (which + 1) * columns // 2].contiguous()
