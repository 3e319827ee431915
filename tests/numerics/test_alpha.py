"""The formulas of alpha against its measurement: the toy experiments of the paper, and what it leaves out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_invertible import Inverse
from monai_invertible.networks import InvertibleBatchNorm, InvertibleConvolution, InvertibleLeakyReLU
from monai_invertible.numerics import batch_norm_alpha, leaky_relu_alpha, measure_alpha


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def norm_layer(weight: torch.Tensor, **options: float) -> InvertibleBatchNorm:
    layer = InvertibleBatchNorm(len(weight), **{"eps": 1e-12, "invertible_eps": 0.0, **options}).double()
    layer.weight = nn.Parameter(weight.double())
    return layer


@pytest.mark.parametrize("slope", [1e-3, 1e-2, 0.1, 0.2, 0.5, 0.9, 1.0, 2.0, 10.0, 1e2, 1e3])
def test_leaky_relu(slope: float) -> None:
    """A slope above one is the inverse of one below."""
    layer = InvertibleLeakyReLU(slope) if slope <= 1 else Inverse(InvertibleLeakyReLU(1 / slope))
    measured = measure_alpha(layer, normal(200_000), noise=1e-7)
    assert measured == pytest.approx(leaky_relu_alpha(slope), rel=0.02)


def test_leaky_relu_of_skewed_values() -> None:
    x = torch.rand(200_000, dtype=torch.float64).log().neg() - 1
    options = {"share": float((x < 0).double().mean()), "power": float(x[x < 0].square().sum() / x.square().sum())}
    formula = leaky_relu_alpha(0.2, **options)
    assert measure_alpha(InvertibleLeakyReLU(0.2), x) == pytest.approx(formula, rel=0.02)
    assert formula < 0.8 * leaky_relu_alpha(0.2)


def test_noise_near_the_signal_of_a_steep_slope_is_beyond_the_formula() -> None:
    """Values change their sign; at the paper's noise of 1e-5 that shows only for its most extreme slopes."""
    x, layer = normal(200_000), InvertibleLeakyReLU(1e-3)
    assert measure_alpha(layer, x, noise=1e-5) == pytest.approx(leaky_relu_alpha(1e-3), rel=0.02)
    assert measure_alpha(layer, x, noise=1e-2) > 1.5 * leaky_relu_alpha(1e-3)


@pytest.mark.parametrize("rho", [1e-3, 1e-2, 0.1, 0.5, 1.0, 3.0, 1e3])
def test_batch_norm_of_two_channels(rho: float) -> None:
    scale = torch.tensor([1.0, rho])
    formula = batch_norm_alpha(scale)
    assert formula == pytest.approx(4 / ((1 + rho**2) * (1 + rho**-2)), rel=1e-5)
    assert measure_alpha(norm_layer(scale), normal(1000, 2, 100)) == pytest.approx(formula, rel=0.02)


@pytest.mark.parametrize("factor", [1, 3, 10, 30, 100])
def test_batch_norm_with_a_fifth_of_its_scales_divided(factor: float) -> None:
    scale = torch.where(torch.arange(100) % 5 == 0, 1 / factor, 1.0)
    formula = batch_norm_alpha(scale)
    assert formula == pytest.approx(1 / float(scale.square().mean() * scale.pow(-2).mean()), rel=1e-5)
    assert measure_alpha(norm_layer(scale), normal(1000, 100)) == pytest.approx(formula, rel=0.02)


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_batch_norm_in_general(eps: float) -> None:
    """Any mean, variance, scale and bias; and the printed formula, without the square, is far off."""
    generator = torch.Generator().manual_seed(2)
    weight, bias, mean, deviation = (torch.rand(20, generator=generator).double() + 0.05 for _ in range(4))
    layer = norm_layer(weight, eps=eps, invertible_eps=0.1)
    layer.bias = nn.Parameter(bias)
    x = mean.view(-1, 1) + deviation.view(-1, 1) * normal(500, 20, 100)
    variance, mean = torch.var_mean(x, dim=[0, 2], correction=0)
    scale = weight.abs() + 0.1
    measured = measure_alpha(layer, x)
    assert measured == pytest.approx(
        batch_norm_alpha(scale, bias=bias, mean=mean, variance=variance, eps=eps), rel=0.01
    )
    printed = (mean.square() + variance).sum() / (scale.square() + bias.square()).sum()
    printed /= ((variance + eps).sqrt() / scale).mean()
    assert abs(float(printed) / measured - 1) > 0.1


def test_larger_invertible_eps_loses_less() -> None:
    weight = torch.tensor([1.0, 1e-3])
    alphas = [batch_norm_alpha(weight + eps) for eps in (0.0, 0.01, 0.1)]
    assert alphas == sorted(alphas)
    assert alphas[2] > 1000 * alphas[0]


def test_convolution_as_a_coupling_loses_little() -> None:
    """And any layer of the contract can be measured."""
    assert 0.2 < measure_alpha(InvertibleConvolution(2, 16).double(), normal(4, 16, 16, 16)) <= 1.1


def test_no_inverse() -> None:
    with pytest.raises(ValueError, match="negative_slope must be above 0, got 0"):
        leaky_relu_alpha(0)
    with pytest.raises(ValueError, match="every scale must differ from 0 to be inverted, got 0 in channel 1"):
        batch_norm_alpha(torch.tensor([1.0, 0.0]))
