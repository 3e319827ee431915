"""Retrospective under-sampling: keep the columns of k-space that a faster scan would have measured.

The masks are those of the fastMRI package: a fully sampled centre (a fraction of the columns) and random, equispaced
or other columns beyond it. Source: Zbontar et al., arXiv 1811.08839, section 6.2.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform, Randomizable

__all__ = ["UndersampleKspaced"]


class UndersampleKspaced(Randomizable, MapTransform):
    """Set the columns that are not sampled to zero: kspace' = mask * kspace, and write ``mask``.

    The mask of an item is the first of these that applies:

    1. its own, if the file has one (test volumes);
    2. one of ``masks``, at random: for example ``monai_invertible.data.fastmri_masks("singlecoil_test")``, as the
       i-RIM is trained. A wider mask is cut to its central columns;
    3. a new one from the mask function; of several (centre fraction, acceleration) pairs one is drawn.

    Args:
        keys: the k-space (coils, \\*spatial, 2).
        center_fractions: fractions of the columns in the fully sampled centre.
        accelerations: the acceleration that belongs to each; sampled columns = columns / acceleration on average.
        mask_type: "random", "equispaced", "equispaced_fraction", "magic" or "magic_fraction" of the fastMRI package.
        masks: float arrays (columns,), zeros and ones.
        seed_by_filename: draw with the seed ``tuple(map(ord, filename))``, as fastMRI does for validation: the same
            mask for all slices of a volume and in every epoch. Otherwise every call draws anew from this transform's
            random state.
        allow_missing_keys: as in MONAI.

    Written: ``mask`` (1, 1, columns, 1), or (1, 1, 1, columns, 1) for a volume, float32; a batch has one mask an item.

    Raises:
        ValueError: if the mask does not fit the k-space, or none of ``masks`` is wide enough.
    """

    def __init__(
        self,
        keys: KeysCollection = "kspace",
        center_fractions: Sequence[float] = (0.08, 0.04),
        accelerations: Sequence[int] = (4, 8),
        mask_type: str = "random",
        masks: Sequence[np.ndarray] | None = None,
        seed_by_filename: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        from fastmri.data.subsample import create_mask_for_mask_type

        MapTransform.__init__(self, keys, allow_missing_keys)
        self.mask_func = create_mask_for_mask_type(mask_type, center_fractions, accelerations)
        self.masks = None if masks is None else [np.asarray(mask, dtype=np.float32).reshape(-1) for mask in masks]
        self.seed_by_filename = seed_by_filename

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            kspace = d[key]
            if "mask" not in d:
                d["mask"] = self._draw(kspace.shape, d)
            if d["mask"].shape[-2] != kspace.shape[-2]:
                raise ValueError(
                    f"UndersampleKspaced: the mask must have one value a column, got {d['mask'].shape[-2]} for "
                    f"{kspace.shape[-2]} columns ({d.get('filename', 'no file name')}). Crop before under-sampling."
                )
            d[key] = kspace * d["mask"]
        return d

    def _draw(self, shape: torch.Size, d: Mapping[Hashable, Any]) -> torch.Tensor:
        seed: Any = tuple(map(ord, d["filename"])) if self.seed_by_filename else int(self.R.randint(2**31 - 1))
        columns = shape[-2]
        if self.masks is None:
            return self.mask_func((1,) * (len(shape) - 3) + tuple(shape[-3:]), seed=seed)[0]
        fitting = [mask for mask in self.masks if mask.size >= columns]
        if not fitting:
            raise ValueError(
                f"UndersampleKspaced: masks must have at least {columns} columns, got at most "
                f"{max(mask.size for mask in self.masks)}. Crop the k-space, or leave masks out."
            )
        mask = fitting[np.random.RandomState(seed).randint(len(fitting))]
        start = (mask.size - columns) // 2
        return torch.from_numpy(mask[start : start + columns].copy()).reshape((1,) * (len(shape) - 2) + (-1, 1))
