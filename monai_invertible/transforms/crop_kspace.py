"""Crop k-space data in image space and simulate the k-space of the crop (i-RIM: crops of 480 x 320 and 32 x 480 x 320).

kspace' = FFT(crop(FFT^-1(kspace))), over the last two dimensions; slices (fastMRI is a 2D acquisition) are cropped
without FFT. Volumes of any width can then share a batch. Source: Putzky & Welling, Invert to Learn to Invert, arXiv
1911.10914, section 4.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection
from monai.networks.blocks.fft_utils_t import fftn_centered_t, ifftn_centered_t
from monai.transforms.transform import MapTransform, Randomizable

__all__ = ["CropKspaced"]


class CropKspaced(Randomizable, MapTransform):
    """Cut a region out of the fully sampled image and return to k-space.

    (coils, \\*spatial, 2) -> (coils, \\*roi_size, 2), in the same unit.

    A smaller image is padded with zeros. A ``reference`` from the file is removed, because it shows another field of
    view: make the target from the cropped k-space with ``ReferenceImaged``. ``slice_index`` follows the crop.

    Args:
        keys: the k-space, fully sampled.
        roi_size: (rows, columns) or (slices, rows, columns); a value below 1 keeps that dimension.
        random_position: a uniformly random position (training) instead of the centre.
        allow_missing_keys: as in MONAI.

    Raises:
        ValueError: if the data are under-sampled (they have a mask) or have fewer dimensions than ``roi_size``.
    """

    def __init__(
        self,
        keys: KeysCollection = "kspace",
        roi_size: Sequence[int] = (480, 320),
        random_position: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if len(roi_size) not in (2, 3):
            raise ValueError(
                f"CropKspaced: roi_size must be (rows, columns) or (slices, rows, columns), got {tuple(roi_size)}. "
                "Use for example (320, 320)."
            )
        self.roi_size = tuple(roi_size)
        self.random_position = random_position

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        if "mask" in d:
            raise ValueError(
                f"CropKspaced: k-space must be fully sampled, got a mask ({d.get('filename', 'no file name')}). "
                "Crop before UndersampleKspaced, and leave test volumes whole."
            )
        starts = None
        for key in self.key_iterator(d):
            kspace = d[key]
            sizes = kspace.shape[1:-1]
            if len(sizes) < len(self.roi_size):
                raise ValueError(
                    f"CropKspaced: roi_size {self.roi_size} must not have more dimensions than the data, got "
                    f'{tuple(sizes)}. Use (rows, columns), or a data list of unit="volume".'
                )
            wanted = (*[0] * (len(sizes) - len(self.roi_size)), *self.roi_size)
            wanted = tuple(n if roi < 1 else roi for n, roi in zip(sizes, wanted, strict=True))
            if starts is None:  # the same position for every key
                starts = [self._start(n - roi) for n, roi in zip(sizes, wanted, strict=True)]
            if len(sizes) == 3:
                kspace = _cut(kspace, 1, starts[0], wanted[0])
            if wanted[-2:] != tuple(sizes[-2:]):
                image = ifftn_centered_t(kspace, spatial_dims=2)
                image = _cut(_cut(image, -3, starts[-2], wanted[-2]), -2, starts[-1], wanted[-1])
                kspace = fftn_centered_t(image.contiguous(), spatial_dims=2)
            d[key] = kspace
        d.pop("reference", None)
        if starts is not None and len(starts) == 3 and "slice_index" in d:
            d["slice_index"] += max(starts[0], 0)
        return d

    def _start(self, room: int) -> int:
        """First index of the region in an image with ``room`` more samples; below 0: zeros to put in front."""
        if room > 0 and self.random_position:
            return int(self.R.randint(room + 1))
        return room // 2 if room >= 0 else -(-room // 2)


def _cut(x: torch.Tensor, dim: int, start: int, size: int) -> torch.Tensor:
    if size <= x.shape[dim]:
        return x.narrow(dim, start, size)
    shape = list(x.shape)
    shape[dim] = size
    padded = x.new_zeros(shape)
    padded.narrow(dim, -start, x.shape[dim]).copy_(x)
    return padded
