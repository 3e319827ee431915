"""For each picture of one domain a random one of the other: training without pairs."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms.transform import MapTransform, Randomizable

__all__ = ["RandPartnerd"]


class RandPartnerd(Randomizable, MapTransform):
    """Add the keys of a random other item; put it before what loads them.

    Args:
        keys: what to take from the partner.
        partners: the items to choose from, with these keys. Each is chosen with the same probability, anew whenever the
            transform is called.

    Raises:
        ValueError: if there are no partners, or one lacks a key.
    """

    def __init__(self, keys: str | Sequence[str], partners: Sequence[Mapping[Hashable, Any]]) -> None:
        MapTransform.__init__(self, keys)
        if not partners or any(key not in partner for partner in partners for key in self.keys):
            raise ValueError(
                f"RandPartnerd: partners must be items with {', '.join(map(str, self.keys))}, got {len(partners)} "
                "items, not all with them. Give a data list of the other domain."
            )
        self.partners = partners

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        partner = self.partners[int(self.R.randint(len(self.partners)))]
        return {**data, **{key: partner[key] for key in self.keys}}
