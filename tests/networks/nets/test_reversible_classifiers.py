"""RevNet, i-RevNet, the layer-wise and the hybrid network and their baseline: parameters, gradients, statistics."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_invertible import set_backprop
from monai_invertible.networks import IRevNet, LayerwiseBranch, PlainResNet, RevNet

# Hascoet et al. 2019, table 1, and the layer-wise network of its equation 34.
NETWORKS: dict[str, tuple[type[nn.Module], dict[str, Any], int]] = {
    "ResNet": (PlainResNet, {}, 3_131_488),
    "RevNet": (RevNet, {}, 3_183_768),
    "i-RevNet": (IRevNet, {"branch": "convolution", "pools": ("channel",) * 3}, 42_801_632),
    "layer-wise": (IRevNet, {"branch": None, "blocks": (3, 4, 4, 2)}, 7_400_032),
    "hybrid": (IRevNet, {}, 3_701_984),
}


def small(name: str) -> nn.Module:
    kind, options, _ = NETWORKS[name]
    torch.manual_seed(0)
    channels = (4, 8, 8, 8) if kind is not IRevNet else 4
    return kind(2, 3, 10, channels=channels, **options).double()


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters_are_the_papers(name: str) -> None:
    kind, options, count = NETWORKS[name]
    with torch.device("meta"):
        assert sum(p.numel() for p in kind(**options).parameters()) == count


@pytest.mark.parametrize(
    ("name", "tolerance"), [("RevNet", 1e-9), ("i-RevNet", 1e-9), ("hybrid", 1e-9), ("layer-wise", 1e-6)]
)
def test_gradients_and_running_statistics_equal_stored_ones(name: str, tolerance: float) -> None:
    """Also on images that are not square. The layer-wise network's inverse loses digits in every layer."""
    images, network = torch.randn(6, 3, 16, 24).double(), small(name)
    found = {}
    for mode in ("store", "invert"):
        net = set_backprop(copy.deepcopy(network), mode)
        loss = nn.functional.cross_entropy(net(images), torch.arange(6))
        found[mode] = torch.autograd.grad(loss, list(net.parameters())), list(net.buffers())
    scale = max(g.abs().max() for g in found["store"][0])
    assert max((a - b).abs().max() for a, b in zip(*(f[0] for f in found.values()), strict=True)) / scale < tolerance
    assert all(torch.equal(a, b) for a, b in zip(*(f[1] for f in found.values()), strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_depends_on_each_image_alone(name: str) -> None:
    network, images = small(name).eval(), torch.randn(3, 3, 8, 16).double()
    assert torch.allclose(network(images), torch.cat([network(image[None]) for image in images]))


def test_layerwise_branch_is_its_layers() -> None:
    torch.manual_seed(0)
    branch, x = LayerwiseBranch(2, 4, units=1).double(), torch.randn(5, 4, 6, 6).double()
    conv, norm, act = branch.chain
    y = conv(x)
    assert isinstance(y, Tensor)
    y = nn.functional.batch_norm(y, None, None, norm.weight.abs() + 0.1, norm.bias, training=True)  # type: ignore
    assert torch.allclose(branch(x), nn.functional.leaky_relu(y, 0.2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pools": ("channel",)}, "one fewer than the 4 stages"),
        ({"pools": ("max",) * 3}, 'pools must be "channel" or "batch"'),
        ({"branch": "plain"}, 'branch must be "convolution", "layerwise" or None'),
        ({"channels": 6}, "channels must be a multiple of four to split twice, got 6"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IRevNet(**options)
    with pytest.raises(ValueError, match="describe the stages, got 2 and 4"):
        RevNet(blocks=(1, 2))
    with pytest.raises(ValueError, match="describe the stages, got 2 and 4"):
        PlainResNet(blocks=(1, 2))
