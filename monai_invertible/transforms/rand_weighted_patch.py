"""One random patch where a weight map allows it.

MONAI's ``RandWeightedCropd`` gives a list of items, after which no transform can take a partner, and never the last
possible patch of an axis.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.croppad.array import SpatialCrop
from monai.transforms.transform import MapTransform, Randomizable
from torch import Tensor

__all__ = ["RandWeightedPatchd"]


class RandWeightedPatchd(Randomizable, MapTransform):
    """Crop all keys to the same patch, whose centre is drawn with the probability that its weight gives.

    Training without pairs crops x of one subject and, after ``RandPartnerd``, y of another.

    Args:
        keys: images (C, \\*spatial).
        roi_size: of the patch.
        weight_key: the weights (1, \\*spatial), not negative; see ``PatchWeightd``.
    """

    def __init__(self, keys: KeysCollection, roi_size: Sequence[int], weight_key: str = "weight") -> None:
        MapTransform.__init__(self, keys)
        self.roi_size = tuple(roi_size)
        self.weight_key = weight_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        weight = d[self.weight_key][0].as_subclass(Tensor)
        total = weight.flatten().double().cumsum(0)
        index = torch.searchsorted(total, float(total[-1]) * self.R.random_sample(), right=True)
        centre = [int(axis) for axis in torch.unravel_index(index, weight.shape)]
        crop = SpatialCrop(roi_center=centre, roi_size=self.roi_size)
        for key in self.key_iterator(d):
            d[key] = crop(d[key])
        return d
