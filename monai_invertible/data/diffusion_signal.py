r"""A diffusion-weighted scan: its b-values and gradient directions, and the tensors that explain its signal best.

The model is :math:`S = S_0 \exp(-b\, g^T D g)` with the unit vector g of the gradient; dipy fits the tensor D by
weighted least squares to the logarithms. Directions, and with them the tensors, are in the frame of the ``bvecs`` file:
FSL's and HCP's is that of the voxels, the first axis flipped where the affine has a positive determinant.

Sources: Basser, Mattiello and LeBihan, Estimation of the Effective Self-Diffusion Tensor from the NMR Spin Echo,
Journal of Magnetic Resonance B 103, 1994; Garyfallidis et al., Dipy, a Library for the Analysis of Diffusion MRI Data,
Frontiers in Neuroinformatics 8, 2014.
"""

from __future__ import annotations

import os

import numpy as np

__all__ = ["fit_diffusion_tensors", "read_diffusion_gradients"]


def read_diffusion_gradients(
    bvals: str | os.PathLike, bvecs: str | os.PathLike, volumes: int, b0_threshold: float = 50.0
) -> tuple[np.ndarray, np.ndarray]:
    """Read FSL's text files, and check that they belong to a scan of so many volumes.

    Args:
        bvals: the file of the b-values in s/mm^2.
        bvecs: the file of the directions, three rows or three columns.
        volumes: of the scan.
        b0_threshold: volumes up to this b-value count as not weighted (HCP's have b = 5).

    Returns:
        b-values (volumes,) and unit vectors (volumes, 3), float64; those of volumes that are not weighted are 0.

    Raises:
        OSError: if a file cannot be read as numbers.
        ValueError: if the numbers do not match, or no tensor can be fitted: a negative b-value, no volume that is not
            weighted, fewer than six that are, directions that are not unit
            vectors, or that do not span the tensor's six components.
    """
    b, g = _numbers(bvals).ravel(), np.atleast_2d(_numbers(bvecs))
    if b.size != volumes:
        raise ValueError(
            f"{bvals}: there must be one b-value for each of the {volumes} volumes, got {b.size}. Take the files of "
            "one scan."
        )
    g = g.T if g.shape[0] == 3 and g.shape[1] != 3 else g
    if g.shape != (volumes, 3):
        raise ValueError(
            f"{bvecs}: there must be three numbers for each of the {volumes} volumes, got shape {g.shape}. Take the "
            "files of one scan."
        )
    if not np.isfinite(b).all() or b.min() < 0:
        raise ValueError(
            f"{bvals}: b-values must be finite and not negative, got "
            f"{b[~((b >= 0) & np.isfinite(b))][0]:g}. Correct the file."
        )
    weighted = b > b0_threshold
    if weighted.all():
        raise ValueError(
            f"{bvals}: a tensor needs a volume with b = 0, got {b.min():g} to {b.max():g}. Add one, or raise "
            f"b0_threshold (now {b0_threshold:g})."
        )
    if weighted.sum() < 6:
        raise ValueError(
            f"{bvals}: a tensor needs at least six volumes with b > {b0_threshold:g}, got {weighted.sum()}. Take a "
            "scan with more directions."
        )
    length = np.linalg.norm(g, axis=1)
    wrong = weighted & ~(np.abs(length - 1.0) < 0.05)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            f"{bvecs}: directions must be unit vectors, got length {length[first]:g} in volume {first} (b = "
            f"{b[first]:g}). Normalise them, after checking that the lengths do not stand for b-values."
        )
    directions = np.einsum("vi,vj->vij", g[weighted], g[weighted]).reshape(-1, 9)
    rank = np.linalg.matrix_rank(directions, tol=0.01 * np.sqrt(weighted.sum()))
    if rank < 6:
        raise ValueError(
            f"{bvecs}: the directions of a tensor must span its six components, got {rank} of them: most lie on "
            "a line, a plane or a cone. Take the file of the scan."
        )
    return b, np.where(weighted[:, None], g / np.where(length > 0, length, 1.0)[:, None], 0.0)


def _numbers(path: str | os.PathLike) -> np.ndarray:
    try:
        with open(path, encoding="utf-8") as file:
            return np.array([line.split() for line in file if line.strip()], dtype=np.float64)
    except ValueError as error:
        raise OSError(
            f"{path}: this file must hold rows of equally many numbers, got something else ({error}). Fetch it again."
        ) from error


def fit_diffusion_tensors(
    signal: np.ndarray, mask: np.ndarray, bvals: np.ndarray, bvecs: np.ndarray, b0_threshold: float = 50.0
) -> np.ndarray:
    """Fit a tensor to every voxel of the mask.

    Args:
        signal: (x, y, z, volumes).
        mask: (x, y, z), bool.
        bvals: b-values in s/mm^2.
        bvecs: unit vectors, (volumes, 3).
        b0_threshold: as in :func:`read_diffusion_gradients`.

    Returns:
        Dxx, Dxy, Dxz, Dyy, Dyz, Dzz in mm^2/s, float32 (6, x, y, z), 0 outside the mask.

    Raises:
        ImportError: if dipy is not installed.
    """
    try:
        from dipy.core.gradients import gradient_table
        from dipy.reconst.dti import TensorModel
    except ImportError as error:
        raise ImportError("fit_diffusion_tensors: fitting needs dipy, got none. pip install dipy.") from error
    table = gradient_table(bvals, bvecs=bvecs, b0_threshold=b0_threshold)
    fit = TensorModel(table, fit_method="WLS").fit(signal[mask])
    tensor = np.zeros((6, *mask.shape), dtype=np.float32)
    tensor[:, mask] = fit.lower_triangular()[:, [0, 1, 3, 2, 4, 5]].T  # dipy: xx, xy, yy, xz, yz, zz
    return tensor
