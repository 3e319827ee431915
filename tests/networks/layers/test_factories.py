"""Blocks of MONAI ask for our layers by name."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.blocks import Convolution
from monai.networks.layers import get_act_layer, get_norm_layer, get_pool_layer
from monai.networks.layers.factories import Conv
from monai.networks.nets import UNet

import monai_invertible
from monai_invertible.networks import (
    BatchPooling,
    ChannelPooling,
    FullyInvertibleUNet,
    InvertibleBatchNorm,
    InvertibleConvolution,
    InvertibleLeakyReLU,
)


@pytest.mark.parametrize("dims", [2, 3])
def test_layers_by_name(dims: int) -> None:
    norm = get_norm_layer(("invertible_batch", {"invertible_eps": 0.2}), dims, 4)
    assert isinstance(norm, InvertibleBatchNorm) and norm.invertible_eps == 0.2 and len(norm.weight) == 4
    act = get_act_layer(("invertible_leakyrelu", {"negative_slope": 0.5}))
    assert isinstance(act, InvertibleLeakyReLU) and act.negative_slope == 0.5
    conv = Conv["invertible", dims](4)
    assert isinstance(conv, InvertibleConvolution)
    size = (4, 6, 2)[:dims]
    x = torch.randn(2, 4, *size)
    assert conv(x).shape == x.shape
    channel = get_pool_layer(("invertible_channel", {"kernel_size": 2}), dims)
    assert isinstance(channel, ChannelPooling) and channel(x).shape[1] == 4 * 2**dims
    batch = get_pool_layer(("invertible_batch", {"kernel_size": (2,) * dims}), dims)
    assert isinstance(batch, BatchPooling) and batch(x).shape[0] == 2 * 2**dims


def test_networks_of_monai_train_with_them() -> None:
    torch.manual_seed(0)
    options = {"norm": ("invertible_batch", {"invertible_eps": 0.0}), "act": "invertible_leakyrelu"}
    block = Convolution(2, 3, 4, **options)
    y = block(torch.randn(2, 3, 8, 8))
    assert abs(float(y.detach().mean())) < 1 and block.adn.N.running_mean.abs().sum() > 0
    network = UNet(3, 1, 2, (4, 8), (2,), **options)
    network(torch.randn(2, 1, 8, 8, 8)).square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())


def test_our_networks_take_them_too() -> None:
    torch.manual_seed(0)
    network = FullyInvertibleUNet(2, 1, 2, (4, 8), (2,), norm="invertible_batch", act="invertible_leakyrelu").double()
    x = torch.randn(2, 1, 8, 8).double()
    grads = []
    for mode in ("store", "invert"):
        net = monai_invertible.set_backprop(copy.deepcopy(network), mode)
        grads.append(torch.autograd.grad(net(x).square().mean(), list(net.parameters())))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*grads, strict=True))
