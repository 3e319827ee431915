"""Where patches may lie: a map for ``RandWeightedPatchd``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform
from monai.utils.type_conversion import convert_to_dst_type
from torch import Tensor

__all__ = ["PatchWeightd"]


class PatchWeightd(MapTransform):
    """Add "weight" (1, x, y, z): 1 at the centre of every patch that holds enough of the mask, else 0.

    With it, ``RandWeightedPatchd`` draws all such patches equally often.

    Args:
        keys: the mask (1, x, y, z).
        roi_size: of the patches.
        min_fraction: the share of a patch that must be in the mask; the paper's is 0.01.

    Raises:
        ValueError: if the image is smaller than a patch, or none holds enough.
    """

    def __init__(self, keys: KeysCollection, roi_size: Sequence[int], min_fraction: float = 0.01) -> None:
        super().__init__(keys)
        self.roi_size = tuple(roi_size)
        self.min_fraction = min_fraction

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        mask = d[self.keys[0]]
        if any(size < roi for size, roi in zip(mask.shape[1:], self.roi_size, strict=True)):
            raise ValueError(
                f"PatchWeightd: an image must be at least as large as a patch, {self.roi_size}, got "
                f"{tuple(mask.shape[1:])} (subject {d.get('subject')}). Use a smaller roi_size."
            )
        inside = (mask.as_subclass(Tensor) != 0).double()[None]
        for axis, roi in enumerate(self.roi_size):  # one axis after the other: the sum of every box
            window = [1] * len(self.roi_size)
            window[axis] = roi
            inside = F.avg_pool3d(inside, window, stride=1)
        enough = inside[0] >= self.min_fraction
        if not enough.any():
            raise ValueError(
                f"PatchWeightd: some patch must have a share of at least {self.min_fraction} in the mask, got "
                f"{float(inside.max()):.3g} (subject {d.get('subject')}). Lower min_fraction."
            )
        weight = torch.zeros(mask.shape)
        weight[
            (slice(None), *(slice(r // 2, r // 2 + n) for r, n in zip(self.roi_size, enough.shape[1:], strict=True)))
        ] = enough.float()
        d["weight"] = convert_to_dst_type(weight, mask)[0]
        return d
