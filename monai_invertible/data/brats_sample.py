"""A sample set in exactly BraTS 2020's format, made from a real template in seconds a subject and without a download.

Tissue fractions of a random brain with a random tumour give aligned FLAIR, T1, contrast-enhanced T1 and T2 images by
the signal equations of a spin echo, and exact labels. The set shows that code works. Scores on it say nothing about
BraTS, whose data must be requested from its owners (https://www.med.upenn.edu/cbica/brats2020).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from monai_invertible.data.sample_anatomy import TEMPLATE_NOTICE
from monai_invertible.data.sample_folder import prepare_sample_folder
from monai_invertible.data.sample_tissues import MRSequence, TissueParameters, random_tissues, simulate_scan
from monai_invertible.data.sample_tumour import add_random_tumour
from monai_invertible.data.write_nifti import write_nifti

__all__ = ["write_brats_sample"]

_NOTE = f"""# Sample data in BraTS 2020's format

Simulated; not BraTS data, not patients, and no score on it compares with a published one.

- Anatomy: randomly deformed tissue maps of the {TEMPLATE_NOTICE}.
- Tumours: random nested ellipsoids with irregular surfaces. Labels: 1 necrotic core, 2 oedema, 4 enhancing tumour.
- Contrasts: signal equations with textbook proton densities and relaxation times, a bias field, Rician noise.
- All subjects come from the same template: they share its anatomy.
"""
_FILES = "BraTS20_Training_[0-9][0-9][0-9]/BraTS20_Training_[0-9][0-9][0-9]_{}.nii.gz"

# CSF, grey matter, white matter, necrosis, oedema, enhancing tumour at 3 T; and after the injection of gadolinium
_TISSUES = (
    TissueParameters(1.00, 4.20, 2.00),
    TissueParameters(0.82, 1.40, 0.095),
    TissueParameters(0.70, 0.85, 0.072),
    TissueParameters(0.95, 2.60, 0.300),
    TissueParameters(0.88, 1.90, 0.170),
    TissueParameters(0.85, 1.75, 0.120),
)
_ENHANCED = (*_TISSUES[:5], TissueParameters(0.85, 0.35, 0.110))
_SCANS = {
    "flair": (_TISSUES, MRSequence(9.0, 0.120, 2.5)),
    "t1": (_TISSUES, MRSequence(0.6, 0.012)),
    "t1ce": (_ENHANCED, MRSequence(0.6, 0.012)),
    "t2": (_TISSUES, MRSequence(4.5, 0.090)),
}
_LABELS = np.array([1, 2, 4], dtype=np.uint8)  # necrosis, oedema, enhancing tumour


def write_brats_sample(
    directory: str | os.PathLike,
    *,
    subjects: int = 8,
    size: int = 240,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write ``BraTS20_Training_001/BraTS20_Training_001_{flair,t1,t1ce,t2,seg}.nii.gz`` and so on.

    Images are int16, skull stripped, in arbitrary units that differ from scan to scan; labels are uint8 0, 1, 2, 4.
    Arrays run to the left, backwards and upwards (LPS), 240 x 240 x 155 of 1 mm at full size. The same arguments give
    the same bytes; a subject does not depend on how many others are written.

    Args:
        directory: where to write; a non-empty one is refused.
        subjects: how many, 1 to 999.
        size: voxels from left to right, at least 32. With fewer than 240 the voxels are larger, 240 / size mm, so that
            the head fills the image at every size.
        seed: the source of all subjects.
        overwrite: replace a sample set that this function wrote before (and nothing else).
        progress: called with one line a subject.

    Returns:
        the directory.

    Raises:
        ValueError: a size below 32, or not 1 to 999 subjects.
        FileExistsError: if the directory is not empty. FileNotFoundError: if the package with the template is not
            installed.
    """
    if size < 32 or not 1 <= subjects <= 999:
        raise ValueError(
            "write_brats_sample: size must be at least 32 and subjects 1 to 999, got "
            f"size={size}, subjects={subjects}. Use for example size=48."
        )
    directory = prepare_sample_folder(directory, _NOTE, [_FILES.format(key) for key in (*_SCANS, "seg")], overwrite)
    for number in range(1, subjects + 1):
        folder = directory / f"BraTS20_Training_{number:03d}"
        _write_subject(folder, size, np.random.default_rng((seed, number)))
        if progress is not None:
            progress(f"[{number}/{subjects}] {folder}")
    return directory


def _write_subject(folder: Path, size: int, rng: np.random.Generator) -> None:
    voxel = 240.0 / size
    fractions = random_tissues((size, size, round(155 / voxel)), voxel, (0.90, 0.98), rng)
    fractions = add_random_tumour(fractions, voxel, rng)[:, ::-1, ::-1]  # to the left, backwards, upwards
    for name, (tissues, sequence) in _SCANS.items():
        jitter = rng.uniform(0.95, 1.05, 3)
        sequence = MRSequence(*(jitter * sequence))
        image = simulate_scan(fractions, tissues, sequence, rng, noise=rng.uniform(0.02, 0.05))
        _write(folder / f"{folder.name}_{name}.nii.gz", rng.uniform(150.0, 900.0) * image, np.int16, voxel)
    tumour = fractions[3:]
    label = np.where(tumour.sum(axis=0) > 0.5, _LABELS[tumour.argmax(axis=0)], 0)
    _write(folder / f"{folder.name}_seg.nii.gz", label, np.uint8, voxel)


def _write(path: Path, array: np.ndarray, dtype: type, voxel: float) -> None:
    affine = np.diag([-voxel, -voxel, voxel, 1.0])
    affine[1, 3] = voxel * (array.shape[1] - 1)  # BraTS: the first voxel is at (0, 239, 0) mm
    write_nifti(path, np.ceil(array).astype(dtype), affine)  # the brain stays above 0
