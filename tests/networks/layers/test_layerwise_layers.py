"""Invertible batch norm, leaky ReLU and pooling: against torch's own, at their edges, and what inversion costs them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from monai_invertible.autograd import InvertibleSequential
from monai_invertible.networks import (
    BatchPooling,
    ChannelPooling,
    InvertibleBatchNorm,
    InvertibleConvolution,
    InvertibleLeakyReLU,
)


def test_batch_norm_is_torchs_with_its_scale_and_statistics() -> None:
    torch.manual_seed(0)
    norm, reference = InvertibleBatchNorm(3, invertible_eps=0.25).double(), nn.BatchNorm2d(3).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, -0.5, 0.0]))
        reference.weight.copy_(torch.tensor([1.75, 0.75, 0.25]))
    x = 2 + 3 * torch.randn(4, 3, 5, 6).double()
    mean, variance, y = norm(x)
    assert torch.allclose(y, reference(x))
    assert torch.allclose(mean, x.mean((0, 2, 3)))
    assert torch.allclose(variance, x.var((0, 2, 3), correction=0))
    assert torch.allclose(norm.running_mean, reference.running_mean)  # type: ignore[arg-type]
    assert torch.allclose(norm.running_var, reference.running_var)  # type: ignore[arg-type]
    assert torch.allclose(norm.eval()(x), reference.eval()(x))  # type: ignore[arg-type]


def test_running_statistics_are_updated_once_a_step() -> None:
    torch.manual_seed(0)
    norms = [InvertibleBatchNorm(4), InvertibleBatchNorm(4)]
    chain = InvertibleSequential(InvertibleConvolution(2, 4), norms[0], InvertibleLeakyReLU(), norms[1])
    x, reference = torch.randn(3, 4, 5, 5), nn.BatchNorm2d(4)
    reference(chain[0](x).detach())
    chain(x)[-1].square().mean().backward()
    assert torch.allclose(norms[0].running_mean, reference.running_mean)  # type: ignore[arg-type]


def test_a_weight_of_zero() -> None:
    x = torch.randn(4, 2, 3, 3).double()
    for eps in (0.1, 0.0):
        norm = InvertibleBatchNorm(2, invertible_eps=eps).double()
        with torch.no_grad():
            norm.weight[1] = 0
        outputs = norm(x)
        if eps:
            assert torch.allclose(norm.inverse(*outputs), x)  # type: ignore[arg-type]
        else:
            with pytest.raises(RuntimeError, match=r"got weight 0 in channel 1. Use invertible_eps=0.1"):
                norm.inverse(*outputs)


def test_without_statistics_training_has_no_inverse() -> None:
    norm = InvertibleBatchNorm(2, push_statistics=False)
    y = norm(torch.randn(4, 2, 3))
    assert isinstance(y, Tensor)
    with pytest.raises(RuntimeError, match="needs the batch's statistics"):
        norm.inverse(y)


@pytest.mark.parametrize("slope", [0.0, -0.1, 1.5])
def test_slopes_without_an_inverse(slope: float) -> None:
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        InvertibleLeakyReLU(slope)


def test_negative_eps() -> None:
    with pytest.raises(ValueError, match="invertible_eps must be at least 0"):
        InvertibleBatchNorm(2, invertible_eps=-0.1)


def test_channel_pooling_has_the_position_as_the_slower_index() -> None:
    x = torch.arange(2 * 2 * 4).view(1, 2, 2, 4)
    y = ChannelPooling((2, 2))(x)
    assert isinstance(y, Tensor)
    expected = torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1)
    assert torch.equal(y, expected)


def test_batch_pooling_gives_the_parts_of_an_image_one_after_the_other() -> None:
    x = torch.arange(2 * 3 * 2 * 4).view(2, 3, 2, 4)
    y = BatchPooling((2, 2))(x)
    assert isinstance(y, Tensor)
    expected = torch.stack([x[b, :, i::2, j::2] for b in (0, 1) for i in (0, 1) for j in (0, 1)])
    assert torch.equal(y, expected)


def test_pooling_of_sizes_that_do_not_fit() -> None:
    for layer in (ChannelPooling((2, 2)), BatchPooling((2, 2))):
        with pytest.raises(ValueError, match="multiple of the stride"):
            layer(torch.randn(1, 4, 3, 4))
        with pytest.raises(ValueError, match="needs a multiple of 4"):
            layer.inverse(torch.randn(3, 3, 2, 2))
    with pytest.raises(ValueError, match="channels must be at least 2 to split"):
        InvertibleConvolution(2, 1)
