"""Gradient error on networks whose gradients are known."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from monai_invertible.numerics import gradient_error


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()


def run(network):
    return network(torch.linspace(-1, 1, 12, dtype=torch.float64).view(3, 4)).square().sum()


def test_same_network_has_no_error_and_keeps_its_grad(network):
    assert gradient_error(network, copy.deepcopy(network), run) == 0.0
    assert all(p.grad is None for p in network.parameters())


def test_error_of_one_parameter_is_relative_to_its_own_gradient(network):
    wrong = copy.deepcopy(network)
    wrong[0].bias.register_hook(lambda g: 1.01 * g)
    assert gradient_error(wrong, network, run) == pytest.approx(0.01, rel=1e-9)


def test_floor_forgives_rounding_of_a_zero_gradient_only():
    class Two(nn.Module):
        def __init__(self, noise):
            super().__init__()
            self.large, self.none = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
            self.noise = noise

        def forward(self):
            return 100 * self.large.sum() + self.noise * self.none.sum()

    def call(network):
        return network()

    assert gradient_error(Two(1e-9), Two(0.0), call) == pytest.approx(1e-8)
    assert gradient_error(Two(1e-9), Two(2e-9), call, floor=0.0) == pytest.approx(0.5, rel=1e-4)


def test_unused_parameter_counts_as_zero(network):
    def first_only(net):
        return run(net[:1])

    assert gradient_error(network, network, first_only) == 0.0


def test_different_parameters_are_refused(network):
    other = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    with pytest.raises(ValueError, match=r"'2.weight' with shapes \(2, 8\) and \(3, 8\)"):
        gradient_error(network, other, run)
