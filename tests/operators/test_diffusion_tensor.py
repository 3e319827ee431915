"""Tensors of known eigenvalues, and dipy's formulas."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from monai_invertible.operators import (
    fractional_anisotropy,
    is_positive_definite,
    mean_diffusivity,
    principal_direction,
    tensor_matrices,
)


def tensors(eigenvalues: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 3) -> (6, n) in random frames, and the frames."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.linalg.qr(torch.randn(len(eigenvalues), 3, 3, generator=generator, dtype=torch.float64))[0]
    matrices = frames @ torch.diag_embed(eigenvalues) @ frames.mT
    return matrices[:, [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]].T, frames


@pytest.fixture
def eigenvalues() -> Tensor:
    return torch.rand(50, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3e-3 - 5e-4


def test_matrices_hold_the_components(eigenvalues: Tensor) -> None:
    tensor, frames = tensors(eigenvalues)
    torch.testing.assert_close(tensor_matrices(tensor), frames @ torch.diag_embed(eigenvalues) @ frames.mT)


def test_scalars_are_those_of_the_eigenvalues(eigenvalues: Tensor) -> None:
    tensor, _ = tensors(eigenvalues)
    mean = eigenvalues.mean(1)
    torch.testing.assert_close(mean_diffusivity(tensor), mean)
    expected = (1.5 * (eigenvalues - mean[:, None]).square().sum(1) / eigenvalues.square().sum(1)).sqrt()
    torch.testing.assert_close(fractional_anisotropy(tensor), expected)
    assert torch.equal(is_positive_definite(tensor), (eigenvalues > 0).all(1))


def test_as_dipy(eigenvalues: Tensor) -> None:
    dti = pytest.importorskip("dipy.reconst.dti", reason="pip install monai-invertible[data]")
    tensor, _ = tensors(eigenvalues)
    values = torch.linalg.eigvalsh(tensor_matrices(tensor)).numpy()
    torch.testing.assert_close(fractional_anisotropy(tensor), torch.from_numpy(dti.fractional_anisotropy(values)))
    torch.testing.assert_close(mean_diffusivity(tensor), torch.from_numpy(dti.mean_diffusivity(values)))


def test_limits() -> None:
    sphere, needle, nothing = (
        torch.tensor(d)[:, None] for d in ([1.0, 0, 0, 1, 0, 1], [0.0, 0, 0, 2, 0, 0], [0.0] * 6)
    )
    assert fractional_anisotropy(sphere).item() == 0 and fractional_anisotropy(needle).item() == pytest.approx(1.0)
    assert fractional_anisotropy(nothing).item() == 0 and not is_positive_definite(needle)
    assert principal_direction(needle).abs().flatten().tolist() == [0, 1, 0]


def test_principal_direction(eigenvalues: Tensor) -> None:
    tensor, frames = tensors(eigenvalues)
    expected = frames[torch.arange(len(frames)), :, eigenvalues.argmax(1)].T
    torch.testing.assert_close((principal_direction(tensor) * expected).sum(0).abs(), torch.ones(50).double())


def test_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tensor_matrices: a tensor has the six components.*got shape \(2, 6, 4\)"):
        mean_diffusivity(torch.zeros(2, 6, 4))
