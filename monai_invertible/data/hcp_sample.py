r"""A sample set in exactly HCP's format, made from a real template in seconds a subject and without a download.

Tissue fractions of a random brain give the signal :math:`S = S_0 \sum_t f_t \exp(-b\, g^T D_t g)` of every volume:
diffusion is isotropic in CSF (3.0 um^2/ms) and grey matter (0.8), and in white matter 1.7 along, 0.3 across a smooth
field of directions. The tensors must be fitted to that, as to a scan. The set shows that code works. Scores on it say
nothing about HCP, whose data must be requested from its owners (https://www.humanconnectome.org).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from monai_invertible.data.atomic_path import atomic_path
from monai_invertible.data.sample_anatomy import TEMPLATE_NOTICE, random_smooth_field
from monai_invertible.data.sample_folder import prepare_sample_folder
from monai_invertible.data.sample_tissues import MRSequence, TissueParameters, random_tissues
from monai_invertible.data.write_nifti import write_nifti

__all__ = ["write_hcp_sample"]

_NOTE = f"""# Sample data in HCP's format

Simulated; not HCP data, and no score on it compares with a published one.

- Anatomy: randomly deformed tissue maps of the {TEMPLATE_NOTICE}.
- Signal: isotropic diffusion in CSF and grey matter, axially symmetric in white matter along a smooth field of random
  directions; T2 weighting, Rician noise. There are no tracts, no crossing fibres, no distortion and no motion.
- Volumes: 3 with b = 5, 30 with b = 1000 and 6 with b = 3000 s/mm^2.
- All subjects come from the same template: they share its anatomy.
"""

# CSF, grey and white matter at 3 T; HCP's echo time
_TISSUES = (TissueParameters(1.0, 4.2, 1.5), TissueParameters(0.86, 1.5, 0.10), TissueParameters(0.77, 0.85, 0.075))
_SEQUENCE = MRSequence(5.52, 0.0895)
_SHELLS = {5: 3, 1000: 30, 3000: 6}
_FILES = ("data.nii.gz", "bvals", "bvecs", "nodif_brain_mask.nii.gz")


def write_hcp_sample(
    directory: str | os.PathLike,
    *,
    subjects: int = 8,
    size: int = 72,
    noise: float = 0.02,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write ``900001/T1w/Diffusion/data.nii.gz``, ``bvals``, ``bvecs``, ``nodif_brain_mask.nii.gz`` and so on.

    The signal is int16 in arbitrary units. Arrays run to the left, forwards and upwards (LAS), as HCP's; at full size
    (174) they are 145 x 174 x 145 of 1.25 mm. Directions are those of the voxel axes, as FSL defines them. The same
    arguments give the same bytes; a subject does not depend on how many others are written.

    Args:
        directory: where to write; a non-empty one is refused.
        subjects: how many.
        size: voxels from back to front, at least 24. With fewer than 174 the voxels are larger, 217.5 / size mm, so
            that the head fills the image equally at every size.
        noise: standard deviation of each channel (real, imaginary), relative to the mean signal without weighting.
        seed: the source of all subjects.
        overwrite: replace a sample set that this function wrote before (and nothing else).
        progress: called with one line a subject.

    Returns:
        the directory.

    Raises:
        ValueError: a size below 24, no subject or negative noise.
        FileExistsError: if the directory is not empty. FileNotFoundError: if the package with the template is not
            installed.
    """
    if size < 24 or subjects < 1 or not noise >= 0:
        raise ValueError(
            "write_hcp_sample: size must be at least 24, subjects at least 1 and noise not negative, got "
            f"size={size}, subjects={subjects}, noise={noise}. Use for example size=32."
        )
    directory = prepare_sample_folder(directory, _NOTE, [f"9*/T1w/Diffusion/{name}" for name in _FILES], overwrite)
    for number in range(1, subjects + 1):
        folder = directory / f"{900000 + number}"
        _write_subject(folder / "T1w" / "Diffusion", size, noise, np.random.default_rng((seed, number)))
        if progress is not None:
            progress(f"[{number}/{subjects}] {folder}")
    return directory


def _write_subject(folder: Path, size: int, noise: float, rng: np.random.Generator) -> None:
    voxel = 217.5 / size
    shape = (round(145 * size / 174), size, round(145 * size / 174))
    fractions = random_tissues(shape, voxel, (0.9, 1.0), rng)[:, ::-1]  # to the left, forwards, upwards
    mask = fractions.sum(axis=0) > 0
    directions = np.stack([random_smooth_field(shape, rng) for _ in range(3)])[:, mask]
    directions /= np.linalg.norm(directions, axis=0) + 1e-6
    bvals, bvecs = _gradients(rng)
    inside = _signals(fractions[:, mask], directions, bvals, bvecs, rng)
    signal = np.zeros((*shape, len(bvals)), dtype=np.int16)
    for index, values in enumerate(inside):
        deviations = noise * rng.standard_normal((2, values.size), dtype=np.float32)
        signal[mask, index] = np.rint(4000.0 * np.hypot(values + deviations[0], deviations[1]))
    affine = np.diag([-voxel, voxel, voxel, 1.0])
    affine[:3, 3] = [(shape[0] - 1) / 2 * voxel, -(shape[1] - 1) * 0.58 * voxel, -(shape[2] - 1) / 2 * voxel]
    write_nifti(folder / "data.nii.gz", signal, affine)
    write_nifti(folder / "nodif_brain_mask.nii.gz", mask.astype(np.uint8), affine)
    for name, table, form in (("bvals", bvals[None], "%d"), ("bvecs", bvecs.T, "%.6f")):
        with atomic_path(folder / name) as path:
            np.savetxt(path, table, fmt=form)


def _gradients(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """b-values and, for each shell, directions spread evenly over a half-sphere, turned at random."""
    from scipy.spatial.transform import Rotation

    vectors = []
    for count in _SHELLS.values():
        z = (np.arange(count) + 0.5) / count
        angle = np.pi * (1.0 + 5.0**0.5) * np.arange(count)
        spiral = np.stack([np.sqrt(1 - z**2) * np.cos(angle), np.sqrt(1 - z**2) * np.sin(angle), z], axis=1)
        vectors.append(Rotation.random(random_state=rng).apply(spiral))
    return np.repeat(list(_SHELLS), list(_SHELLS.values())), np.concatenate(vectors)


def _signals(
    fractions: np.ndarray, directions: np.ndarray, bvals: np.ndarray, bvecs: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """(volumes, voxels), of mean 1 without weighting. Diffusivities, in mm^2/s, differ a little between subjects."""
    water, grey, along, across = rng.uniform(0.95, 1.05, 4) * [3.0e-3, 0.8e-3, 1.7e-3, 0.3e-3]
    weights = [fraction * _SEQUENCE.signal(tissue) for fraction, tissue in zip(fractions, _TISSUES, strict=True)]
    projections = (bvecs @ directions) ** 2
    b = bvals[:, None]
    signal = weights[0] * np.exp(-b * water) + weights[1] * np.exp(-b * grey)
    signal = signal + weights[2] * np.exp(-b * (across + (along - across) * projections))
    return (signal / np.sum(weights, axis=0).mean()).astype(np.float32)
