"""Layers as users write them, with nothing but forward and inverse: dropout, norms and hooks inside, in any order."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_invertible.autograd import Inverse, InvertibleModule, InvertibleSequential, set_backprop
from monai_invertible.networks.layers import AdditiveCoupling, InvertibleBatchNorm, InvertibleLeakyReLU
from monai_invertible.networks.layers.layerwise import layerwise_unit
from monai_invertible.networks.layers.micro_batches import MicroBatchedSequential
from tests.autograd.helper import assert_same, conv_branch, coupling_chain, example, loss, train


def dropout():
    return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Dropout(0.5), nn.Tanh())


def spectral_norm():
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Conv1d(2, 2, 3, padding=1)), nn.Tanh())


def batch_norm():
    return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2), nn.Tanh())


class OneSided(InvertibleModule):
    def __init__(self, branch):
        super().__init__()
        self.net = branch()

    def forward(self, x, **context):
        a, b = x.chunk(2, 1)
        return torch.cat([a, b + self.net(a)], 1)

    def inverse(self, y, **context):
        a, b = y.chunk(2, 1)
        return torch.cat([a, b - self.net(a)], 1)


class TwoSided(InvertibleModule):
    """Its inverse calls its branches in the other order."""

    def __init__(self, branch):
        super().__init__()
        self.f, self.g = branch(), branch()

    def forward(self, x, **context):
        a, b = x.chunk(2, 1)
        a = a + self.f(b)
        return torch.cat([a, b + self.g(a)], 1)

    def inverse(self, y, **context):
        a, b = y.chunk(2, 1)
        b = b - self.g(a)
        return torch.cat([a - self.f(b), b], 1)


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("branch", [dropout, spectral_norm, batch_norm], ids=lambda b: b.__name__)
@pytest.mark.parametrize("layer", [OneSided, TwoSided])
def test_layer_with_random_numbers_and_buffers(layer, branch, mode):
    torch.manual_seed(0)
    chain = InvertibleSequential(layer(branch), Inverse(layer(branch)), layer(branch)).double()
    assert_same(chain, lambda net: train(net, example()), mode=mode)
    assert_same(chain, lambda net: train(Inverse(net), example()), mode=mode)


def test_inverse_that_draws_other_numbers_than_its_forward_raises():
    """Drawn by the layer's own code, in another order; nothing tells which belong together."""

    class Scaled(InvertibleModule):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x, **context):
            first, second = torch.rand(2).double()
            return (x * self.scale + first) * (1 + second)

        def inverse(self, y, **context):
            second, first = torch.rand(2).double()
            return (y / (1 + second) - first) / self.scale

    chain = InvertibleSequential(Scaled()).double()
    with pytest.raises(RuntimeError, match="inverse of step 0 of 1, Scaled, does not undo its forward.*backprop="):
        loss(chain(example().requires_grad_())).backward()
    assert_same(chain, lambda net: train(net, example()), mode="checkpoint")


class Scaling(AdditiveCoupling):
    """A subclass that does more than its steps say."""

    def forward(self, *state, **context):
        return 2 * super().forward(*state, **context)

    def inverse(self, *state, **context):
        return super().inverse(*(t / 2 for t in state), **context)


def test_subclass_with_a_forward_of_its_own():
    torch.manual_seed(0)
    chain = InvertibleSequential(Scaling(conv_branch(), dropout()), AdditiveCoupling(conv_branch())).double()
    assert_same(chain, lambda net: train(net, example()))
    x = example()
    with torch.no_grad():
        torch.testing.assert_close(chain.eval()(x), chain[1](2 * AdditiveCoupling.forward(chain[0], x)))


def test_layer_whose_forward_was_replaced():
    """As libraries do that wrap layers in place."""
    chain = coupling_chain(2)
    original = chain[0].forward
    chain[0].forward = lambda *state, **context: -original(*state, **context)
    inverse = chain[0].inverse
    chain[0].inverse = lambda y, **context: inverse(-y, **context)
    x = example()
    with torch.no_grad():
        torch.testing.assert_close(chain(x), chain[1](-original(x)))
    stored = torch.autograd.grad(loss(set_backprop(chain, "store")(x)), list(chain.parameters()))
    inverted = torch.autograd.grad(loss(set_backprop(chain, "invert")(x)), list(chain.parameters()))
    for a, b in zip(inverted, stored, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("features", [4096, 4097, 5000])
def test_norm_of_many_features_is_updated_once(features, mode):
    """Batch norm writes its statistics without being counted."""
    chain = InvertibleSequential(InvertibleBatchNorm(features)).double()
    assert_same(chain, lambda net: train(net, example(2, features, 3)), mode=mode)
    net = set_backprop(InvertibleSequential(InvertibleBatchNorm(features)), mode)
    net(torch.full((2, features, 3), 2.0, requires_grad=True))[-1].sum().backward()
    torch.testing.assert_close(net[0].running_mean, torch.full((features,), 0.2))


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm1d(5000),
        lambda: nn.BatchNorm1d(5000, momentum=None),
        lambda: nn.InstanceNorm1d(5000, track_running_stats=True),
        lambda: nn.BatchNorm1d(5000, affine=False),
    ],
    ids=["batch", "cumulative", "instance", "without weights"],
)
def test_large_norm_in_a_branch_is_updated_once(norm, mode):
    chain = InvertibleSequential(AdditiveCoupling(nn.Sequential(nn.PReLU(5000), norm()), norm())).double()
    assert_same(chain, lambda net: train(net, example(2, 10000, 3)), mode=mode)


def test_too_large_a_buffer_that_training_changes_raises():
    class Statistics(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("moments", torch.zeros(2, 40_000))
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.weight * F.batch_norm(x, self.moments[0], self.moments[1], training=True)

    chain = InvertibleSequential(AdditiveCoupling(Statistics()))
    with pytest.raises(RuntimeError, match="buffer 'moments' of Statistics, which is too large .* 80000 numbers"):
        chain(torch.randn(2, 80_000, 2, requires_grad=True))


@pytest.mark.parametrize("behind", [dropout, conv_branch])
def test_inverse_of_a_norm_on_a_state_that_is_no_output(behind):
    """An edited latent; or dropout behind the norm, which draws another mask."""

    def step(net):
        with torch.no_grad():
            outputs = net(example())
        state = [(t + example(*t.shape, seed=5)).abs().requires_grad_() for t in outputs]
        loss(net.inverse(*state)).backward()
        return [t.grad for t in state]

    torch.manual_seed(0)
    norms = InvertibleBatchNorm(4), AdditiveCoupling(behind(), behind()), InvertibleBatchNorm(4), InvertibleLeakyReLU()
    assert_same(InvertibleSequential(*norms).double(), step)


def test_inverse_of_norms_in_pieces_on_a_state_that_is_no_output():
    torch.manual_seed(0)
    found = []
    for mode in ("invert", "store"):
        torch.manual_seed(0)
        chain = MicroBatchedSequential(*layerwise_unit(1, 4), *layerwise_unit(1, 4), micro_batches=2).double()
        chain.steps()  # in pieces: what is stored below runs the same steps
        with torch.no_grad():
            outputs = chain(*example(4, 4, 6).tensor_split(2))
        state = [(t + example(*t.shape, seed=5)).abs().requires_grad_() for t in outputs]
        if mode == "invert":
            result = chain.inverse(*state)
        else:
            result = state
            for step in chain.steps(inverse=True):
                result = step.forward(*result)
        found.append(torch.autograd.grad(loss(*result), [*state, *chain.parameters()]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
