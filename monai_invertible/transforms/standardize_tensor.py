"""Between diffusivities and the standardised values that a network works on."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform

from monai_invertible.data import TensorStatistics

__all__ = ["StandardizeTensord"]


class StandardizeTensord(MapTransform):
    """(x - mean) / std for every channel, with the statistics of the training set; with ``restore`` x std + mean.

    Args:
        keys: images (C, \\*spatial).
        statistics: of C channels.
        restore: from standardised values back.
        allow_missing_keys: as in MONAI.
    """

    def __init__(
        self,
        keys: KeysCollection,
        statistics: TensorStatistics,
        restore: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.change = statistics.restore if restore else statistics.standardize

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.change(d[key])
        return d
