"""A fastMRI folder, exactly as it is distributed, as a MONAI data list.

A folder (``singlecoil_train``, ``singlecoil_val``, ``multicoil_test``, ...) holds one HDF5 file a volume: ``kspace``
(slices, [coils,] rows, columns) complex64, ``reconstruction_esc`` (single coil) or ``reconstruction_rss`` (multi-coil)
(slices, rows, columns) float32, ``ismrmrd_header``, and the attributes ``acquisition``, ``max``, ``norm``,
``patient_id``. Test files have no reconstruction and a ``mask`` (columns).

The list is made from headers only (no image data is read) and every file is checked, so that a damaged download is
found in the first seconds. Give it to ``monai.data.Dataset`` or ``CacheDataset`` with the transform ``LoadFastMRId``.

Source: Zbontar et al., fastMRI: an open dataset and benchmarks for accelerated MRI, arXiv 1811.08839.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from monai_invertible.data.ismrmrd_header import parse_ismrmrd_header

__all__ = ["fastmri_datalist", "fastmri_masks", "open_fastmri"]


@contextmanager
def open_fastmri(path: str | os.PathLike) -> Iterator[Any]:
    """Open a fastMRI volume (an ``h5py.File``) for reading; an ``OSError`` names the file that cannot be read."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(
            f"{path}: the HDF5 file cannot be read ({error}); most likely its download is incomplete. "
            "Delete the file and download it again."
        ) from error


def fastmri_datalist(folder: str | os.PathLike, unit: str = "slice", min_slices: int = 1) -> list[dict[str, Any]]:
    """List the slices or the volumes of a fastMRI folder, sorted by file name.

    Args:
        folder: a folder of ``.h5`` volumes; its sub-folders are not searched.
        unit: "slice" (2D: one item a slice) or "volume" (3D: one item a file).
        min_slices: volumes with fewer slices are left out (the 3D i-RIM trains on volumes of at least 32).

    Returns:
        one dictionary an item: ``kspace`` (path of the file), ``filename``, ``unit``, ``slice_index`` (of the item's
        first slice), ``num_slices`` (of the volume), ``acquisition``, ``max`` (largest value of the volume's
        reconstruction; 0.0 if not known), ``recon_size`` [rows, columns], ``spacing`` [rows, columns, slices] in mm.
        All values can be written as JSON.

    Raises:
        FileNotFoundError: if the folder does not exist. OSError: if a file cannot be read.
        ValueError: if the folder holds no volumes, or a file's contents do not have the fastMRI format.
    """
    if unit not in ("slice", "volume"):
        raise ValueError(f'fastmri_datalist: unit must be "slice" or "volume", got {unit!r}. Choose one.')
    items: list[dict[str, Any]] = []
    for path in _volumes(folder):
        with open_fastmri(path) as file:
            item = {"kspace": str(path), "filename": path.name, "unit": unit, **_describe(file, path)}
        if item["num_slices"] >= min_slices:
            count = item["num_slices"] if unit == "slice" else 1
            items.extend({**item, "slice_index": index} for index in range(count))
    if not items:
        raise ValueError(f"fastmri_datalist: no volume of {folder} has {min_slices} slices. Use a smaller min_slices.")
    return items


def fastmri_masks(folder: str | os.PathLike) -> list[np.ndarray]:
    """Read the sampling masks of a folder of test volumes, float32 (columns,) each, for ``UndersampleKspaced``."""
    masks = []
    for path in _volumes(folder):
        with open_fastmri(path) as file:
            if "mask" in file:
                masks.append(np.asarray(file["mask"], dtype=np.float32).reshape(-1))
    if not masks:
        raise ValueError(f'fastmri_masks: no volume of {folder} has a "mask". Use the folder of the test set.')
    return masks


def _volumes(folder: str | os.PathLike) -> list[Path]:
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"fastMRI folder {folder} does not exist. Give the folder that holds the .h5 volumes.")
    paths = sorted(path for path in folder.glob("*.h5") if not path.name.startswith("."))
    if not paths:
        inner = sorted({str(path.parent) for path in folder.glob("*/*.h5")})
        hint = f"Did you mean {' or '.join(inner)}?" if inner else "Give the folder that holds the .h5 volumes."
        raise ValueError(f"fastMRI folder {folder} holds no .h5 file. {hint}")
    return paths


def _describe(file: Any, path: Path) -> dict[str, Any]:
    """Check what can be checked without reading image data, and return the item's description of the volume."""
    for key in ("kspace", "ismrmrd_header"):
        if key not in file:
            raise ValueError(f'{path}: a fastMRI volume must have "{key}", got {sorted(file)}. Take the original file.')
    kspace = file["kspace"]
    if kspace.ndim not in (3, 4) or kspace.dtype.kind != "c" or 0 in kspace.shape:
        raise ValueError(
            f"{path}: kspace must be complex, (slices, rows, columns) or (slices, coils, rows, columns), "
            f"got {kspace.dtype} {kspace.shape}. Take the original file."
        )
    if "mask" in file and file["mask"].size != kspace.shape[-1]:
        raise ValueError(
            f"{path}: the mask must have one value a column of k-space, got {file['mask'].size} for {kspace.shape[-1]} "
            "columns. Take mask and k-space from the same file."
        )
    recon_size, spacing = parse_ismrmrd_header(file["ismrmrd_header"][()], str(path))
    return {
        "num_slices": int(kspace.shape[0]),
        "acquisition": str(file.attrs.get("acquisition", "unknown")),
        "max": float(file.attrs.get("max", 0.0)),
        "recon_size": recon_size,
        "spacing": spacing,
    }
