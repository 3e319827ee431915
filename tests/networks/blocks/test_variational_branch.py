"""The variational branch alone; with a network: tests/networks/nets/test_invertible_unets.py."""

from __future__ import annotations

import torch
from torch import nn

from monai_invertible.networks.blocks import VariationalBranch


def small() -> VariationalBranch:
    torch.manual_seed(0)
    return VariationalBranch(2, 1, (8, 8), (4, 8, 16), ((2, 2), (2, 2))).double()


def test_terms_are_those_of_myronenko() -> None:
    """The divergence vanishes at mean 0 and variance 1; otherwise it is the sum over the latent by the voxels."""
    branch = small()
    bottleneck, image = torch.randn(2, 16, 2, 2).double(), torch.randn(2, 1, 8, 8).double()
    nn.init.zeros_(branch.statistics.weight)
    nn.init.zeros_(branch.statistics.bias)
    assert branch(bottleneck, image)[1].abs().max() == 0
    branch.statistics.bias.data[0] = 3.0  # one mean
    branch.statistics.bias.data[128] = 2.0  # one log-variance
    expected = (9 + torch.tensor(2.0).exp() - 2 - 1) / 64
    torch.testing.assert_close(branch(bottleneck, image)[1], expected.expand(2), check_dtype=False, rtol=1e-5, atol=0)


def test_it_draws_in_training_and_takes_the_mean_in_evaluation() -> None:
    branch = small()
    bottleneck, image = torch.randn(2, 16, 2, 2).double(), torch.randn(2, 1, 8, 8).double()
    assert not torch.equal(branch(bottleneck, image)[0], branch(bottleneck, image)[0])
    branch.eval()
    assert torch.equal(branch(bottleneck, image)[0], branch(bottleneck, image)[0])
