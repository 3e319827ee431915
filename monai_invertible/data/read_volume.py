"""Read the volume or volumes of a NIfTI or Analyze file or a folder of one DICOM series, and say what is wrong with it.

MONAI's readers do the reading. They accept some damage without a word: of several DICOM series they take one, and a
slice that is missing or broken is left out, which stretches the others over its place.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
from monai.data.image_reader import ITKReader, NibabelReader
from monai.utils.module import optional_import

__all__ = ["check_same_grid", "read_volume"]


def read_volume(path: str | os.PathLike, subject: str, dimensions: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Read a volume, or all volumes of a file.

    Args:
        path: a file (``.nii.gz``, ``.nii``, ``.hdr`` with ``.img``) or a folder of one DICOM series.
        subject: whose it is, for the error messages.
        dimensions: 3 for one volume, 4 for several.

    Returns:
        the voxels, float32 (x, y, z) or (x, y, z, volumes), all finite, and the affine from voxels to mm in RAS,
        float64 (4, 4).

    Raises:
        FileNotFoundError: if there is no such file. OSError: if it cannot be read. ImportError: if a DICOM series is to
            be read without itk.
        ValueError: if it has not so many dimensions, or its numbers are not finite, or slices not evenly spaced.
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
    while array.ndim > dimensions and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != dimensions:
        rule, advice = {
            3: ("an image must be one 3D volume", "Save each volume in its own file."),
            4: ("these must be 3D volumes in one 4D file", "Join them along the fourth dimension."),
        }[dimensions]
        raise ValueError(f"{path}: {rule}, got shape {shape} (subject {subject}). {advice}")
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        raise ValueError(
            f"{path}: voxels must be finite, got {bad} that are NaN or infinite (subject {subject}). Take the original "
            "file, or replace them, for example by 0."
        )
    return array, np.asarray(meta["affine"], dtype=np.float64)


def check_same_grid(
    first: str,
    first_shape: tuple[int, ...],
    first_affine: np.ndarray,
    path: str,
    shape: tuple[int, ...],
    affine: np.ndarray,
    subject: str,
) -> None:
    """Raise ValueError if an image does not lie on the voxels of the first: another shape, or a corner that is off by
    more than a tenth of a voxel."""
    if shape != first_shape:
        raise ValueError(
            f"{path}: all images of a subject must have one shape, got {shape}, and {first_shape} in {first} (subject "
            f"{subject}). Resample one to the grid of the other."
        )
    corners = np.array([(*corner, 1.0) for corner in itertools.product(*((0, n - 1) for n in shape))])
    distance = np.linalg.norm((corners @ (affine - first_affine).T)[:, :3], axis=1).max()
    if not distance <= 0.1 * np.linalg.norm(first_affine[:3, :3], axis=0).min():
        raise ValueError(
            f"{path}: all images of a subject must have one affine, got corners {distance:.3g} mm away from those of "
            f"{first} (subject {subject}). Resample one to the grid of the other; if only its header is wrong, copy "
            "the other's."
        )


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
