"""Load one item of a ``fastmri_datalist``: a slice or a volume of k-space, read from the HDF5 file by itself.

Only the slice that is asked for is read, so a training epoch over slices costs one read of the data set.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.transforms.transform import MapTransform

from monai_invertible.data.fastmri_dataset import open_fastmri

__all__ = ["LoadFastMRId"]


class LoadFastMRId(MapTransform):
    """Replace the path of a fastMRI volume by its k-space, and add what else the file has.

    Written keys, with ``spatial`` = (rows, columns) for an item of unit "slice" and (slices, rows, columns) for
    "volume":

    - ``kspace`` (coils, \\*spatial, 2) float32, real and imaginary part last; single coil has coils = 1. The scale is
      the file's own (about 1e-6 to 1e-3);
    - ``reference`` (1, \\*spatial) float32: the magnitude reconstruction in the file (of size ``recon_size``), if
      there is one;
    - ``mask`` (1, 1, columns, 1), or (1, 1, 1, columns, 1) for a volume, float32 zeros and ones, if the file has one;
    - ``recon_size`` (2,) int64 and ``spacing`` (3,) float32, so that they collate. All other keys stay.

    Args:
        keys: the key of the path, "kspace".
        allow_missing_keys: as in MONAI.

    Raises:
        OSError: if the file cannot be read. ValueError: if the k-space is not finite.
    """

    def __init__(self, keys: KeysCollection = "kspace", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            path, volume = d[key], d["unit"] == "volume"
            index = slice(None) if volume else d["slice_index"]
            with open_fastmri(path) as file:
                kspace = file["kspace"][index]
                name = "reconstruction_esc" if file["kspace"].ndim == 3 else "reconstruction_rss"
                reference = file[name][index] if name in file else None
                mask = file["mask"][()] if "mask" in file else None
                coils = file["kspace"].ndim == 4
            if not coils:
                kspace = kspace[None]
            elif volume:
                kspace = np.moveaxis(kspace, 1, 0)
            d[key] = torch.view_as_real(torch.from_numpy(np.ascontiguousarray(kspace, dtype=np.complex64)))
            if not torch.isfinite(d[key]).all():
                where = "" if volume else f" in slice {index}"
                raise ValueError(f"{path}: k-space must be finite, got NaN or Inf{where}. Take the original file.")
            if reference is not None:
                d["reference"] = torch.from_numpy(np.asarray(reference, dtype=np.float32))[None]
            if mask is not None:
                shape = (1,) * (d[key].ndim - 2) + (-1, 1)
                d["mask"] = torch.from_numpy(np.asarray(mask, dtype=np.float32)).reshape(shape)
        d["recon_size"] = torch.as_tensor(d["recon_size"], dtype=torch.int64)
        d["spacing"] = torch.as_tensor(d["spacing"], dtype=torch.float32)
        return d
