"""From the probabilities of overlapping regions to one label map."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform

__all__ = ["RegionsToLabeld"]


class RegionsToLabeld(MapTransform):
    """Probabilities of regions (regions, \\*spatial) -> label map (1, \\*spatial), of the same dtype.

    Each region is painted where its probability is above ``threshold``, over those before it; elsewhere the label is 0.
    For BraTS, ``paint=[(1, 2), (0, 1), (2, 4)]``: the whole tumour as oedema (2), in it the core (1), in that the
    enhancing part (4). It is the inverse of ``ConvertToMultiChannelBasedOnBratsClassesd``, for regions that lie within
    one another.

    Args:
        keys: keys of the probabilities.
        paint: pairs of channel and label value, in the order of painting.
        threshold: of the probability.
        allow_missing_keys: as in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        paint: Sequence[tuple[int, int]],
        threshold: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.paint = tuple((int(channel), int(value)) for channel, value in paint)
        self.threshold = threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            label = torch.zeros_like(d[key][:1])
            for channel, value in self.paint:
                label[d[key][channel : channel + 1] > self.threshold] = value
            d[key] = label
        return d
