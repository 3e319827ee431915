"""A random tumour with nested parts: a necrotic core in an enhancing rim in an oedema, as in a glioblastoma.

A part is where a distorted distance to the centre is below a radius: d(x) = |A (x - c)| + wobble(x), with A a random
ellipsoid. The rim encloses the core everywhere. The oedema is wider and more irregular, and spares CSF and cortex.
"""

from __future__ import annotations

import numpy as np

__all__ = ["add_random_tumour"]


def add_random_tumour(fractions: np.ndarray, voxel: float, rng: np.random.Generator) -> np.ndarray:
    """Replace part of a brain by a tumour in its white matter.

    Args:
        fractions: (3, \\*spatial), CSF, grey and white matter as ``random_tissues`` makes them.
        voxel: size of a voxel in mm; every part is at least about a voxel thick.
        rng: the source of the tumour.

    Returns:
        float32 (6, \\*spatial): CSF, grey matter, white matter, necrosis, oedema, enhancing tumour; the sum is that of
        ``fractions``.
    """
    brain = fractions.sum(axis=0) > 0
    core = max(rng.uniform(5.0, 14.0), 1.5 * voxel)
    rim = core + max(rng.uniform(3.0, 6.0), 1.5 * voxel)
    oedema = rim + max(rng.uniform(8.0, 18.0), 1.5 * voxel)
    centre = _centre(brain, fractions[2], voxel, rim, rng)

    reach = int(np.ceil(1.6 * oedema / voxel))
    box = tuple(slice(max(c - reach, 0), min(c + reach + 1, n)) for c, n in zip(centre, brain.shape, strict=True))
    shape = brain[box].shape
    offsets = [(np.arange(s.start, s.stop) - c) * voxel for s, c in zip(box, centre, strict=True)]
    stretch = np.linalg.qr(rng.standard_normal((3, 3)))[0] * rng.uniform(0.8, 1.25, 3)
    grid = np.stack(np.meshgrid(*offsets, indexing="ij")).astype(np.float32)
    distance = np.linalg.norm(np.tensordot(stretch.T.astype(np.float32), grid, axes=1), axis=0)
    distance += 0.35 * rim * _smooth_noise(shape, 0.3 * rim / voxel, rng)
    outer = distance + 0.5 * oedema * _smooth_noise(shape, 0.3 * oedema / voxel, rng)
    density = 0.8 + 0.2 * _smooth_noise(shape, 0.15 * oedema / voxel, rng)

    def below(distances: np.ndarray, radius: float) -> np.ndarray:  # smooth over one voxel
        return np.clip((radius - distances) / voxel + 0.5, 0.0, 1.0)

    necrosis = below(distance, core)
    enhancing = below(distance, rim) - necrosis
    tissue = fractions[(slice(None), *box)]
    spared = np.clip(2.0 * tissue[0] + 0.8 * tissue[1], 0.0, 1.0)
    swollen = np.maximum(density * below(outer, oedema) * (1.0 - spared), below(distance, rim + max(2.0, voxel)))
    parts = np.stack([necrosis, np.maximum(swollen - necrosis - enhancing, 0.0), enhancing]) * brain[box]

    result = np.concatenate([fractions, np.zeros_like(fractions)])
    result[(slice(0, 3), *box)] *= 1.0 - parts.sum(axis=0)
    result[(slice(3, 6), *box)] = parts
    return result


def _smooth_noise(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Noise with a structure of ``sigma`` voxels, of largest magnitude 1."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    return noise / np.abs(noise).max()


def _centre(
    brain: np.ndarray, white: np.ndarray, voxel: float, depth: float, rng: np.random.Generator
) -> tuple[int, ...]:
    """A voxel of the white matter ``depth`` mm below the surface of the brain, or as deep as there is one."""
    from scipy.ndimage import distance_transform_edt

    step = max(1, round(3.0 / voxel))
    coarse = (slice(None, None, step),) * 3
    depths = distance_transform_edt(brain[coarse]) * step * voxel * (white[coarse] > 0.6)
    candidates = np.argwhere(depths >= min(depth, depths.max()))
    return tuple(int(step * index) for index in candidates[rng.integers(len(candidates))])
