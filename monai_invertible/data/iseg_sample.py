"""A sample set in exactly iSeg-2019's format, made from a real template in seconds a subject and without a download.

Tissue fractions of a random brain of an infant's size give aligned T1 and T2 images by the signal equations of a spin
echo, and exact labels. As at the age of six months, grey and white matter are nearly equal in T1; in T2 they differ
more. The anatomy is that of an adult. The set shows that code works. Scores on it say nothing about iSeg, whose data
must be requested from its owners (https://iseg2019.web.unc.edu).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from monai_invertible.data.atomic_path import atomic_path
from monai_invertible.data.sample_anatomy import TEMPLATE_NOTICE
from monai_invertible.data.sample_folder import prepare_sample_folder
from monai_invertible.data.sample_tissues import MRSequence, TissueParameters, random_tissues, simulate_scan

__all__ = ["write_iseg_sample"]

_NOTE = f"""# Sample data in iSeg-2019's format

Simulated; not iSeg data, not infants, and no score on it compares with a published one.

- Anatomy: randomly deformed and shrunk tissue maps of the {TEMPLATE_NOTICE}.
  Labels: 10 CSF, 150 grey matter, 250 white matter.
- Contrasts: signal equations with relaxation times chosen so that grey and white matter are nearly equal in T1 (as at
  six months), 1 mm blur, a bias field, 3 % Rician noise.
- All subjects come from the same template, an adult's: they share its anatomy.
"""

# CSF, grey and white matter
_TISSUES = (TissueParameters(1.0, 4.2, 1.5), TissueParameters(0.86, 1.55, 0.135), TissueParameters(0.86, 1.50, 0.105))
_SCANS = {"T1": MRSequence(0.8, 0.010), "T2": MRSequence(6.0, 0.120)}
_LABELS = np.array([10, 150, 250], dtype=np.uint8)


def write_iseg_sample(
    directory: str | os.PathLike,
    *,
    subjects: int = 10,
    size: int = 256,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write ``subject-1-T1.hdr`` and ``.img``, ``subject-1-T2``, ``subject-1-label`` and so on (Analyze 7.5).

    Images are int16 in arbitrary units; labels are uint8 0, 10, 150, 250. Arrays are 144 x 192 x 256 of 1 mm at full
    size. Analyze stores no orientation. These arrays run to the left, forwards and upwards (LAS), which is what
    nibabel takes for granted. The same arguments give the same bytes; a subject does not depend on how many others
    are written.

    Args:
        directory: where to write; a non-empty one is refused.
        subjects: how many.
        size: voxels along the longest edge, at least 32. With fewer than 256 the voxels are larger, 256 / size mm, so
            that the head fills the image equally at every size.
        seed: the source of all subjects.
        overwrite: replace a sample set that this function wrote before (and nothing else).
        progress: called with one line a subject.

    Returns:
        the directory.

    Raises:
        ValueError: a size below 32 or no subject.
        FileExistsError: if the directory is not empty. FileNotFoundError: if the package with the template is not
            installed.
    """
    if size < 32 or subjects < 1:
        raise ValueError(
            "write_iseg_sample: size must be at least 32 and subjects at least 1, got "
            f"size={size}, subjects={subjects}. Use for example size=48."
        )
    patterns = [f"subject-*-{key}.{end}" for key in (*_SCANS, "label") for end in ("hdr", "img")]
    directory = prepare_sample_folder(directory, _NOTE, patterns, overwrite)
    for number in range(1, subjects + 1):
        stem = directory / f"subject-{number}"
        _write_subject(stem, size, np.random.default_rng((seed, number)))
        if progress is not None:
            progress(f"[{number}/{subjects}] {stem}")
    return directory


def _write_subject(stem: Path, size: int, rng: np.random.Generator) -> None:
    from scipy.ndimage import gaussian_filter

    voxel = 256.0 / size
    shape = (round(144 / voxel), round(192 / voxel), size)
    fractions = random_tissues(shape, voxel, (0.74, 0.82), rng)[:, ::-1]  # to the left, forwards, upwards
    brain = fractions.sum(axis=0) > 0
    label = np.where(brain, _LABELS[fractions.argmax(axis=0)], 0)
    sigma = 1.0 / 2.355 / voxel  # 1 mm full width at half maximum
    blurred = np.stack([gaussian_filter(fraction, sigma) for fraction in fractions]) * brain
    for name, sequence in _SCANS.items():
        sequence = MRSequence(*(rng.uniform(0.95, 1.05, 3) * sequence))
        image = simulate_scan(blurred, _TISSUES, sequence, rng, noise=0.03)
        _write_analyze(Path(f"{stem}-{name}"), rng.uniform(150.0, 600.0) * image, np.int16, voxel)
    _write_analyze(Path(f"{stem}-label"), label, np.uint8, voxel)


def _write_analyze(stem: Path, array: np.ndarray, dtype: type, voxel: float) -> None:
    from nibabel.analyze import AnalyzeImage

    image = AnalyzeImage(np.ceil(array).astype(dtype), None)  # the brain stays above 0
    image.header.set_zooms((voxel,) * 3)
    with atomic_path(f"{stem}.hdr") as header, atomic_path(f"{stem}.img"):
        image.to_filename(header)  # writes both
