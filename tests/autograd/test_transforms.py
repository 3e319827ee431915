"""Where saved tensors are not recorded, a chain is plain mathematics: tracing, export, torch.func, forward mode."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad

from monai_invertible.autograd import InvertibleSequential, set_backprop
from monai_invertible.networks.layers import AdditiveCoupling
from tests.autograd.helper import assert_close, assert_same, coupling_chain, example, loss


def smooth():
    return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Tanh())


def both():
    """A chain, and a copy of it with plain autograd."""
    chain = coupling_chain(2, smooth)
    return chain, set_backprop(copy.deepcopy(chain), "store")


def functional(net, parameters, x):
    return loss(torch.func.functional_call(net, parameters, (x,)))


def of_parameters(net):
    return torch.func.grad(lambda p: functional(net, p, example()))(dict(net.named_parameters()))


def of_input(net):
    return {"x": torch.func.grad(lambda x: loss(net(x)))(example())}


def per_sample(net):
    gradient = torch.func.grad(lambda p, x: functional(net, p, x[None]))
    return torch.func.vmap(gradient, in_dims=(None, 0))(dict(net.named_parameters()), example(3, 4, 6))


def mapped(net):
    return {"y": torch.func.vmap(net)(example(3, 2, 4, 6))}


def hessian(net):
    return {"h": torch.func.hessian(lambda x: loss(net(x)))(example(1, 4, 2))}


def tangent(net):
    return {"t": torch.func.jvp(net, (example(),), (example(seed=2),))[1]}


def dual_numbers(net):
    with forward_ad.dual_level():
        return {"t": forward_ad.unpack_dual(net(forward_ad.make_dual(example(), example(seed=2)))).tangent}


@pytest.mark.parametrize(
    "transform", [of_parameters, of_input, per_sample, mapped, hessian, tangent, dual_numbers], ids=lambda f: f.__name__
)
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # forward mode compiles its formulas with it
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")
def test_transform(transform):
    chain, stored = both()
    assert_close(transform(chain), transform(stored))


def test_engine_after_a_transform():
    """A graph recorded outside of the transform, and used again after it."""
    chain, stored = both()
    y, expected = chain(example()), stored(example())
    of_parameters(chain)
    loss(y).backward()
    loss(expected).backward()
    for a, b in zip(chain.parameters(), stored.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("grad", [True, False])
def test_jit_trace(grad):
    chain, stored = both()
    with torch.set_grad_enabled(grad), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.trace")  # deprecated; the category changes with the version
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # checks of shapes become constants
        traced = torch.jit.trace(chain, example())
    x = example(3, 4, 8, seed=5)
    torch.testing.assert_close(traced(x), stored(x))


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_export(direction):
    class Network(nn.Module):
        def __init__(self, chain):
            super().__init__()
            self.chain = chain

        def forward(self, x):
            return getattr(self.chain, direction)(x)

    chain, stored = both()
    program = torch.export.export(Network(chain), (example(),))
    torch.testing.assert_close(program.module()(example(seed=5)), Network(stored)(example(seed=5)))


def test_fake_tensors():
    """Shapes and memory without computing: a training step costs nothing at any size."""
    with FakeTensorMode():
        chain = InvertibleSequential(AdditiveCoupling(smooth(), smooth()), AdditiveCoupling(smooth()))
        x = torch.empty(2, 4, 1 << 40, requires_grad=True)
        chain(x).sum().backward()
        assert x.grad.shape == x.shape and all(p.grad.shape == p.shape for p in chain.parameters())


def dropout():
    return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Dropout(0.5), nn.Tanh())


def norms():
    return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2), nn.RReLU())


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("branch", [dropout, norms], ids=lambda b: b.__name__)
@pytest.mark.parametrize("create_graph", [False, True])
def test_backward_of_a_batch_of_gradients(branch, mode, create_graph):
    """What is recomputed is not batched, so random numbers may be drawn."""

    def step(net):
        x = example().requires_grad_()
        leaves, rows = [x, *net.parameters()], torch.eye(2, dtype=torch.float64)
        y = net(x).square().sum((1, 2))
        found = torch.autograd.grad(y, leaves, rows, is_grads_batched=True, create_graph=create_graph)
        if create_graph:
            found[0].square().sum().backward()
        return [*(g.detach() for g in found), x.grad]

    assert_same(coupling_chain(2, branch), step, tolerance=1e-8, mode=mode)


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
def test_vectorised_jacobian(mode):
    def step(net):
        return torch.autograd.functional.jacobian(lambda x: net(x).sum(1), example(2, 4, 3), vectorize=True)

    assert_same(coupling_chain(2, dropout), step, mode=mode)
