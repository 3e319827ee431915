"""Brains of known tissue: the fractions of CSF, grey and white matter of a random subject, and scans of them.

A subject is the MNI152 2009a template seen through a random affine map and a random smooth displacement, so its labels
are exact and its anatomy is that of the template. A scan is the signal equation of a sequence for every tissue,
S = PD (1 - exp(-TR / T1)) exp(-TE / T2), weighted by the fractions, with a bias field and Rician noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from monai_invertible.data.sample_anatomy import load_scan, random_smooth_field

__all__ = ["MRSequence", "TissueParameters", "random_tissues", "simulate_scan"]


class TissueParameters(NamedTuple):
    """Proton density (water = 1) and relaxation times in seconds."""

    density: float
    t1: float
    t2: float


class MRSequence(NamedTuple):
    """A spin echo: repetition, echo and (if not 0) inversion time in seconds."""

    repetition: float
    echo: float
    inversion: float = 0.0

    def signal(self, tissue: TissueParameters) -> float:
        """Steady-state magnitude; after an inversion, |1 - 2 exp(-TI / T1) + exp(-TR / T1)| instead of saturation."""
        recovery = 1.0 - np.exp(-self.repetition / tissue.t1)
        if self.inversion:
            recovery = abs(1.0 - 2.0 * np.exp(-self.inversion / tissue.t1) + np.exp(-self.repetition / tissue.t1))
        return float(tissue.density * recovery * np.exp(-self.echo / tissue.t2))


@cache
def _template(blur: float) -> tuple[np.ndarray, ...]:
    """CSF, grey and white matter of the template, blurred by ``blur`` voxels."""
    from scipy.ndimage import gaussian_filter

    grey, white = load_scan("gm", order=1), load_scan("wm", order=1)
    brain = load_scan("t1", order=1) > 0
    maps = (np.clip(1.0 - grey - white, 0.0, 1.0) * brain, grey * brain, white * brain)
    return tuple(gaussian_filter(fraction, blur) if blur > 0 else fraction for fraction in maps)


def random_tissues(
    shape: Sequence[int],
    voxel: float,
    scale: tuple[float, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """Fractions of CSF, grey and white matter of a random subject, its brain in the centre.

    The template is the mean of many brains, so its sulci and boundaries are washed out. The fractions are therefore
    sharpened (power 1.5), after the CSF was given more weight, by another random factor for each subject.

    Args:
        shape: voxels to the right, forwards and upwards (the axes of RAS).
        voxel: size of a voxel in mm.
        scale: smallest and largest size of a brain, relative to the template (an adult).
        rng: the source of the subject.

    Returns:
        float32 (3, \\*shape); the sum over tissues is 1 in the brain and 0 elsewhere.
    """
    from scipy.ndimage import map_coordinates
    from scipy.spatial.transform import Rotation

    maps = _template(round(0.4 * np.sqrt(max(voxel**2 - 1.0, 0.0)), 3))
    brain = np.argwhere(sum(maps) > 0.5)
    centre = (brain.min(axis=0) + brain.max(axis=0)) / 2
    rotation = Rotation.from_euler("xyz", rng.uniform(-6.0, 6.0, 3), degrees=True).as_matrix()
    matrix = (rotation / rng.uniform(*scale, 3)).astype(np.float32)
    axes = [(np.arange(n, dtype=np.float32) - (n - 1) / 2) * voxel for n in shape]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True)
    points = [
        row[0] * grid[0] + row[1] * grid[1] + row[2] * grid[2] + middle + 8.0 * random_smooth_field(shape, rng, 8)  # mm
        for row, middle in zip(matrix, centre.astype(np.float32), strict=True)
    ]
    fractions = np.stack([map_coordinates(fraction, points, order=1) for fraction in maps])
    inside = fractions.sum(axis=0) > 0.5
    fractions[0] *= rng.uniform(1.5, 2.5)
    fractions **= 1.5
    return np.where(inside, fractions / np.maximum(fractions.sum(axis=0), 1e-6), 0.0).astype(np.float32)


def simulate_scan(
    fractions: np.ndarray,
    tissues: Sequence[TissueParameters],
    sequence: MRSequence,
    rng: np.random.Generator,
    noise: float,
) -> np.ndarray:
    """Magnitude image of tissue fractions, float32, of mean 1 before bias and noise, 0 outside the brain.

    Args:
        fractions: (tissues, \\*spatial), zero outside the brain.
        tissues: one a fraction.
        sequence: what the scanner does.
        rng: the source of the bias field and the noise.
        noise: standard deviation of each channel (real, imaginary), relative to the mean over the brain.
    """
    brain = fractions.sum(axis=0) > 0
    signals = np.array([sequence.signal(tissue) for tissue in tissues], dtype=np.float32)
    values = signals @ fractions[:, brain]
    values *= np.exp(0.2 * random_smooth_field(brain.shape, rng, 4)[brain]) / values.mean()
    deviations = noise * rng.standard_normal((2, values.size), dtype=np.float32)
    image = np.zeros(brain.shape, dtype=np.float32)
    image[brain] = np.hypot(values + deviations[0], deviations[1])
    return image
