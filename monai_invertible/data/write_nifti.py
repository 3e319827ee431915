"""Write a NIfTI file in one step, with the geometry that every reader finds."""

from __future__ import annotations

import os

import numpy as np

from monai_invertible.data.atomic_path import atomic_path

__all__ = ["write_nifti"]


def write_nifti(file: str | os.PathLike, array: np.ndarray, affine: np.ndarray) -> None:
    """Write an array (x, y, z[, volumes]) of the type it has, and its affine (voxels to mm in RAS) as sform and qform.

    MONAI's ``SaveImage`` cannot replace a file in one step, and that of MONAI 1.6 fails for some sagittal acquisitions:
    it takes the first two rows and columns of the affine for that of an image in 2D, and inverts it.
    """
    import nibabel

    affine = np.asarray(affine, dtype=np.float64)
    image = nibabel.Nifti1Image(array, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    with atomic_path(file) as path:
        nibabel.save(image, path)
