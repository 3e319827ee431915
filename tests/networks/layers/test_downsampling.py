"""Squeeze and orthogonal downsampling: what they are, beyond the properties that every layer has."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from monai_invertible.networks.layers import OrthogonalDownsample, SpaceToChannel
from tests.cases import perturbed

MAPS = ["cayley", "matrix_exp", "householder"]


def test_squeeze_is_pixel_unshuffle_in_2d() -> None:
    x = torch.randn(2, 3, 4, 6)
    assert torch.equal(SpaceToChannel((2, 2))(x), F.pixel_unshuffle(x, 2))


def test_squeeze_takes_a_block_of_each_channel_in_3d() -> None:
    x = torch.randn(1, 2, 2, 4, 6)
    y = SpaceToChannel((1, 2, 3))(x)
    assert y.shape == (1, 12, 2, 2, 2)
    assert torch.equal(y[0, 6:, 1, 0, 1], x[0, 1, 1, :2, 3:].flatten())


@pytest.mark.parametrize("orthogonal_map", MAPS)
def test_downsampling_starts_at_haars_wavelet(orthogonal_map: str) -> None:
    layer = OrthogonalDownsample(2, (2, 2, 2), orthogonal_map=orthogonal_map).double()
    x = torch.randn(1, 2, 4, 4, 4, dtype=torch.float64)
    y = layer(x).unflatten(1, (2, 8))
    torch.testing.assert_close(y[:, :, 0], F.avg_pool3d(x, 2) * 8**0.5)
    torch.testing.assert_close(layer.matrix()[0].abs(), torch.full((8, 8), 8**-0.5, dtype=torch.float64))


@pytest.mark.parametrize("stride", [(2,), (3, 2), (1, 2, 2), (1, 1)])
@pytest.mark.parametrize("orthogonal_map", MAPS)
def test_its_matrices_stay_orthogonal_and_learn(orthogonal_map: str, stride: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = perturbed(OrthogonalDownsample(2, stride, orthogonal_map=orthogonal_map).double())
    matrix = layer.matrix()
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(matrix.shape[-1]).double().expand_as(matrix))
    if matrix.shape[-1] > 1:
        weights = torch.randn_like(matrix)
        (gradient,) = torch.autograd.grad((matrix * weights).sum(), layer.raw)
        assert gradient.abs().max() > 1e-3
        assert not torch.equal(matrix[0], matrix[1])


def test_autocast_does_not_round_the_matrix() -> None:
    layer = perturbed(OrthogonalDownsample(1, (2, 2)))
    x = torch.randn(1, 1, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer.inverse(layer(x)), x)


@pytest.mark.parametrize(
    "layer", [SpaceToChannel((2, 3)), OrthogonalDownsample(2, (2, 3))], ids=lambda m: type(m).__name__
)
def test_errors(layer: torch.nn.Module) -> None:
    name = type(layer).__name__
    with pytest.raises(
        ValueError, match=rf"{name}: every spatial size must be a multiple of the stride \(2, 3\), got \(4, 4\)"
    ):
        layer(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match=f"{name}: .* channels"):
        layer.inverse(torch.zeros(1, 5, 4, 3))
