"""The choice of layer-wise branches: what it needs, and what it does."""

from __future__ import annotations

import pytest
import torch

from monai_invertible import read_drift
from monai_invertible.networks import (
    FullyInvertibleUNet,
    InvertibleDiffusionUNet,
    InvertibleRIM,
    LayerwiseBranch,
    PartiallyInvertibleUNet,
)

BUILD = {
    FullyInvertibleUNet: lambda width, **o: FullyInvertibleUNet(2, 1, 2, (width, 8), (2,), **o),
    PartiallyInvertibleUNet: lambda width, **o: PartiallyInvertibleUNet(2, 1, 2, (width, 8), (2,), **o),
    InvertibleDiffusionUNet: lambda width, **o: InvertibleDiffusionUNet(2, 1, 2, (width, 8), (2,), **o),
    InvertibleRIM: lambda width, **o: InvertibleRIM(2, 1, channels=width, downsample=(1,), hidden_channels=4, **o),
}


@pytest.mark.parametrize("kind", BUILD)
def test_wrong_choices(kind: type) -> None:
    with pytest.raises(ValueError, match='branch must be "convolution" or "layerwise", got \'hybrid\''):
        BUILD[kind](4, branch="hybrid")
    with pytest.raises(ValueError, match="even and at least 4"):
        BUILD[kind](7, branch="layerwise")
    assert not any(isinstance(m, LayerwiseBranch) for m in BUILD[kind](4).modules())


@pytest.mark.parametrize("kind", BUILD)
def test_branches_come_back_as_the_network_does(kind: type) -> None:
    network = BUILD[kind](4, branch="layerwise", backprop="store")
    modes = {m.chain.backprop for m in network.modules() if isinstance(m, LayerwiseBranch)}
    assert modes == {"store"}


def test_nested_chains_walk_back() -> None:
    torch.manual_seed(0)
    network = BUILD[FullyInvertibleUNet](8, branch="layerwise")
    network(torch.randn(2, 1, 16, 16)).square().mean().backward()
    drift = read_drift(network)
    assert len(drift) == 1 + sum(isinstance(m, LayerwiseBranch) for m in network.modules())
    assert 0 < max(drift.values()) < 1e-4


def test_time_shifts_the_input_of_a_branch() -> None:
    branch = LayerwiseBranch(2, 4, embedding_channels=3)
    x, embedding = torch.randn(2, 4, 8, 8), torch.randn(2, 3)
    shift = branch.shift(embedding)  # type: ignore[misc]
    assert torch.allclose(branch(x, embedding), branch.chain(x + shift[..., None, None])[-1])
