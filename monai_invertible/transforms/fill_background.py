"""Training targets at the surface of the brain, where an image of high resolution has no truth."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform

__all__ = ["FillBackgroundd"]


class FillBackgroundd(MapTransform):
    """Take another image's values outside the mask.

    Blocks of low resolution lie partly outside the brain, where high resolution is 0. A network trained on that learns
    to guess where the brain ends, and pays with its voxels on this side. With the values of low resolution there, it
    has nothing to guess.

    Args:
        keys: images (C, \\*spatial), such as those of high resolution.
        source_key: where to take the values from; the image itself if an item has no such key.
        mask_key: (1, \\*spatial); other than 0 is the brain.
        allow_missing_keys: as in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection = "y",
        source_key: str = "x",
        mask_key: str = "mask",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.source_key = source_key
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = torch.where(d[self.mask_key] != 0, d[key], d.get(self.source_key, d[key]))
        return d
