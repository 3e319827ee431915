"""Read one 3D volume from a NIfTI or Analyze file or a folder of one DICOM series, and say what is wrong with it.

MONAI's readers do the reading. They accept some damage without a word: of several DICOM series they take one, and a
slice that is missing or broken is left out, which stretches the others over its place.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.image_reader import ITKReader, NibabelReader
from monai.utils.module import optional_import

__all__ = ["read_volume"]


def read_volume(path: str | os.PathLike, subject: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a volume.

    Args:
        path: a file (``.nii.gz``, ``.nii``, ``.hdr`` with ``.img``) or a folder of one DICOM series.
        subject: whose it is, for the error messages.

    Returns:
        the voxels, float32 (x, y, z), all finite, and the affine from voxels to mm in RAS, float64 (4, 4).

    Raises:
        FileNotFoundError: if there is no such file. OSError: if it cannot be read. ImportError: if a DICOM series is to
            be read without itk.
        ValueError: if it is not one 3D volume of finite numbers, evenly spaced.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: this image of subject {subject} does not exist. Restore it, or list again.")
    if path.is_dir():
        _check_series(path, subject)
    reader: Any = ITKReader() if path.is_dir() else NibabelReader()
    try:
        image = reader.read(path)
        array, meta = reader.get_data(image)
        array = np.asarray(array, dtype=np.float32)
    except MemoryError:
        raise
    except Exception as error:  # nibabel, zlib and ITK have no common class of errors
        cause = " ".join(str(error).split()) or type(error).__name__
        raise OSError(
            f"{path}: this image of subject {subject} cannot be read ({cause}). "
            "Most likely its download or copy is incomplete: fetch it again."
        ) from error
    if path.is_dir() and _unevenness(image) > 0.1:  # positions are decimal text: some rounding is usual
        raise ValueError(
            f"{path}: the slices of a DICOM series must be evenly spaced, got gaps (subject {subject}). A slice is "
            "missing or broken: export the series again."
        )
    shape = array.shape
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise ValueError(
            f"{path}: an image must be one 3D volume, got shape {shape} (subject {subject}). Save each volume in its "
            "own file."
        )
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise ValueError(
            f"{path}: voxels must be finite, got {bad} that are NaN or infinite (subject {subject}). Take the original "
            "file, or replace them, for example by 0."
        )
    return array, np.asarray(meta["affine"], dtype=np.float64)


def _unevenness(image: Any) -> float:
    """By how much of their mean distance two slices of a series are too near or too far."""
    tags = image.GetMetaDataDictionary()
    name = "ITK_non_uniform_sampling_deviation"
    return float(tags[name]) / float(image.GetSpacing()[2]) if name in tags.GetKeys() else 0.0


def _check_series(path: Path, subject: str) -> None:
    itk, available = optional_import("itk")
    if not available:
        raise ImportError(f"{path}: reading a DICOM series (subject {subject}) needs itk, got none. pip install itk.")
    names = itk.GDCMSeriesFileNames.New()  # with the settings of ITKReader
    names.SetUseSeriesDetails(True)
    names.AddSeriesRestriction("0008|0021")
    names.SetDirectory(str(path))
    count = len(names.GetSeriesUIDs())
    if count != 1:
        raise ValueError(
            f"{path}: a folder must hold one DICOM series, got {count} (subject {subject}). Give each series a folder "
            "of its own."
        )
