"""What a scanner of coarser voxels sees, the mean of a block of fine ones; and the way back, one value a block."""

from __future__ import annotations

import numpy as np

__all__ = ["block_mean", "repeat_blocks"]


def block_mean(volume: np.ndarray, mask: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean over the voxels of each block that are in the mask.

    Args:
        volume: (x, y, z, \\*channels).
        mask: (x, y, z), bool.
        factor: voxels of a block along each axis. Blocks at the end may have fewer.

    Returns:
        (ceil(x / factor), ..., \\*channels), float32, 0 in blocks without mask; and the mask of the blocks that
        have any.
    """
    counts = _block_sum(mask.astype(np.float32), factor)
    extra = (1,) * (volume.ndim - 3)
    total = _block_sum(volume * mask.reshape(*mask.shape, *extra), factor)
    return total / np.maximum(counts, 1.0).reshape(*counts.shape, *extra), counts > 0


def _block_sum(volume: np.ndarray, factor: int) -> np.ndarray:
    for axis in range(3):
        volume = np.add.reduceat(volume, np.arange(0, volume.shape[axis], factor), axis=axis)
    return volume


def repeat_blocks(volume: np.ndarray, factor: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Nearest-neighbour up-sampling of the last three axes, cropped to ``shape``."""
    for axis in (-3, -2, -1):
        volume = np.repeat(volume, factor, axis=axis)
    return volume if shape is None else volume[..., : shape[0], : shape[1], : shape[2]]
