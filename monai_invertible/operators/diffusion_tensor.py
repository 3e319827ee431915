r"""What a diffusion tensor says in one number: its eigenvalues, their mean (MD), and how much they differ (FA).

A tensor is six components Dxx, Dxy, Dxz, Dyy, Dyz, Dzz in mm^2/s, the order of FSL's ``dtifit --save_tensor``. With the
eigenvalues :math:`\lambda`, their mean :math:`\bar\lambda`,

.. math:: MD = \bar\lambda, \qquad
    FA = \sqrt{\tfrac{3}{2}} \frac{\sqrt{\sum_i (\lambda_i - \bar\lambda)^2}}{\sqrt{\sum_i \lambda_i^2}}

Both are invariants of the matrix and need no eigenvalues: the sums are the squared Frobenius norms of
:math:`D - MD \cdot 1` and of :math:`D`. FA is at most 1 for a positive-definite tensor; a network's prediction may have
negative eigenvalues, and FA up to :math:`\sqrt{3/2}` then.

Source: Basser and Pierpaoli, Microstructural and Physiological Features of Tissues Elucidated by
Quantitative-Diffusion-Tensor MRI, Journal of Magnetic Resonance B 111, 1996.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "TENSOR_COMPONENTS",
    "fractional_anisotropy",
    "is_positive_definite",
    "mean_diffusivity",
    "principal_direction",
    "tensor_matrices",
]

TENSOR_COMPONENTS = ("Dxx", "Dxy", "Dxz", "Dyy", "Dyz", "Dzz")


def tensor_matrices(tensor: Tensor) -> Tensor:
    """(6, \\*spatial) -> the symmetric matrices (\\*spatial, 3, 3)."""
    if tensor.shape[0] != 6:
        raise ValueError(
            f"tensor_matrices: a tensor has the six components {', '.join(TENSOR_COMPONENTS)} as its first dimension, "
            f"got shape {tuple(tensor.shape)}. Take the batch's items one by one."
        )
    order = torch.tensor([0, 1, 2, 1, 3, 4, 2, 4, 5], device=tensor.device)
    return tensor.as_subclass(Tensor)[order].movedim(0, -1).unflatten(-1, (3, 3))


def mean_diffusivity(tensor: Tensor) -> Tensor:
    """(6, \\*spatial) -> MD (\\*spatial), in the tensor's unit."""
    return tensor_matrices(tensor).diagonal(dim1=-2, dim2=-1).mean(-1)


def fractional_anisotropy(tensor: Tensor) -> Tensor:
    """(6, \\*spatial) -> FA (\\*spatial), without unit; 0 where the tensor is 0."""
    matrices = tensor_matrices(tensor)
    mean = matrices.diagonal(dim1=-2, dim2=-1).mean(-1)
    norm = torch.linalg.matrix_norm(matrices)
    deviation = torch.linalg.matrix_norm(matrices - mean[..., None, None] * torch.eye(3).to(matrices))
    return torch.where(norm > 0, 1.5**0.5 * deviation / norm, 0.0)


def is_positive_definite(tensor: Tensor) -> Tensor:
    """(6, \\*spatial) -> bool (\\*spatial): all eigenvalues are positive, as water diffuses; by the leading minors."""
    xx, xy, xz, yy, yz, zz = tensor.as_subclass(Tensor).double()
    second = xx * yy - xy * xy
    determinant = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    return (xx > 0) & (second > 0) & (determinant > 0)


def principal_direction(tensor: Tensor) -> Tensor:
    """(6, \\*spatial) -> unit vectors (3, \\*spatial) of the largest eigenvalue; their sign means nothing."""
    return torch.linalg.eigh(tensor_matrices(tensor)).eigenvectors[..., -1].movedim(-1, 0)
