"""Gradients of a chain are those of plain autograd, whatever part of them is asked for."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from monai_invertible.autograd import Inverse, InvertibleSequential
from monai_invertible.networks.layers import AdditiveCoupling, OrthogonalConvolution, OrthogonalCoupling
from tests.autograd.helper import Conditioned, assert_same, conv_branch, coupling_chain, example, loss, train


def test_100_couplings_in_float64():
    chain = coupling_chain(100)
    assert_same(chain, lambda net: train(net, example()))


def test_100_couplings_with_context_in_float64():
    chain = coupling_chain(100, lambda: Conditioned())
    assert_same(chain, lambda net: train(net, example(seed=2) / 10, time=example(2, 1, 1) - 4))


def test_100_couplings_in_float32():
    chain = coupling_chain(100, dtype=torch.float32)
    assert_same(chain, lambda net: train(net, example(dtype=torch.float32)), tolerance=1e-4)


def test_orthogonal_couplings():
    torch.manual_seed(0)
    chain = InvertibleSequential(*[OrthogonalCoupling(4, conv_branch()) for _ in range(20)]).double()
    assert_same(chain, lambda net: train(net, example()))


@pytest.mark.parametrize("sides", ["f", "g"])
def test_one_sided_couplings(sides):
    torch.manual_seed(0)
    layers = [AdditiveCoupling(**{"f": None, "g": None, s: conv_branch()}) for s in sides * 2]
    mixing = [OrthogonalConvolution(4) for _ in layers]
    chain = InvertibleSequential(*[m for pair in zip(mixing, layers, strict=True) for m in pair]).double()
    assert_same(chain, lambda net: train(net, example()))


def test_uneven_split():
    torch.manual_seed(0)
    f, g = nn.Conv1d(3, 1, 3, padding=1), nn.Conv1d(1, 3, 3, padding=1)
    chain = InvertibleSequential(AdditiveCoupling(f, g, split=(1, 3))).double()
    assert_same(chain, lambda net: train(net, example()))


def test_complex_numbers():
    torch.manual_seed(0)
    branches = [nn.Conv1d(2, 2, 3, padding=1, dtype=torch.complex128) for _ in range(4)]
    chain = InvertibleSequential(AdditiveCoupling(*branches[:2]), AdditiveCoupling(*branches[2:]))

    def step(net):
        leaves = [torch.complex(example(), example(seed=3)).requires_grad_(), *net.parameters()]
        gradients = torch.autograd.grad(loss(torch.view_as_real(net(leaves[0]))), leaves)
        return [torch.view_as_real(g) for g in gradients]

    assert_same(chain, step)


def test_forward_and_inverse_of_a_chain():
    chain = coupling_chain(10)
    x = example()
    assert_same(chain, lambda net: train(Inverse(net), x))
    with torch.no_grad():
        torch.testing.assert_close(chain.inverse(chain(x)), x)


@pytest.mark.parametrize("named", [["0.f.0.weight"], ["2.g.3.bias", "1.f.0.weight"], ["x"], ["x", "0.g.3.weight"]])
def test_autograd_grad_of_a_part(named):
    def step(net):
        x = example().requires_grad_()
        leaves = {"x": x, **dict(net.named_parameters())}
        return torch.autograd.grad(loss(net(x)), [leaves[n] for n in named])

    got = assert_same(coupling_chain(), step)
    assert all(g is None for g in got["parameters"].values())


def test_backward_to_a_part():
    def step(net):
        x = example().requires_grad_()
        loss(net(x)).backward(inputs=[x, net[1].f[0].weight])
        return x.grad

    got = assert_same(coupling_chain(), step)
    assert sum(g is not None for g in got["parameters"].values()) == 1


def test_accumulation_over_steps():
    def step(net):
        for seed in range(3):
            loss(net(example(seed=seed))).backward()

    assert_same(coupling_chain(), step)


def test_two_forwards_then_one_backward():
    def step(net):
        first, second = net(example(seed=1)), net(example(seed=2))
        (loss(first) + 2 * loss(second) + (first * second).sum()).backward()

    assert_same(coupling_chain(), step)


def test_two_forwards_then_two_backwards_in_either_order():
    def step(net):
        first, second = loss(net(example(seed=1))), loss(net(example(seed=2)))
        first.backward()
        second.backward()

    assert_same(coupling_chain(), step)


def test_double_backward_of_a_gradient_penalty():
    def step(net):
        x = example().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(net(x)), x, create_graph=True)
        (gradient.square().sum() + loss(net(x))).backward()
        return x.grad

    assert_same(coupling_chain(), step)


def test_gradcheck_and_gradgradcheck():
    chain = coupling_chain(1, lambda: nn.Sequential(nn.Conv1d(1, 1, 3, padding=1), nn.Tanh()))
    x = example(1, 2, 3).requires_grad_()

    def function(x, *parameters):
        return torch.func.functional_call(chain, dict(zip(names, parameters, strict=True)), (x,))

    names, parameters = zip(*chain.named_parameters(), strict=True)
    assert torch.autograd.gradcheck(function, (x, *parameters))
    assert torch.autograd.gradgradcheck(function, (x, *parameters))


@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
def test_autocast(inside):
    """Branches compute in bfloat16 in both passes; the state stays float32, so that inverting loses nothing."""
    seen = []

    class Watched(nn.Conv1d):
        def forward(self, x):
            y = super().forward(x)
            seen.append(y.dtype)
            return y

    def step(net):
        seen.clear()
        x = example(dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = net(x)
            total = loss(y)
            if inside:
                total.backward()
        if not inside:
            total.backward()
        assert y.dtype == torch.float32
        return {"y": y.detach(), "x": x.grad}

    chain = coupling_chain(4, lambda: nn.Sequential(Watched(2, 2, 3, padding=1), nn.Tanh()), dtype=torch.float32)
    # A state off by one rounding of float32 is now and then rounded to another bfloat16.
    assert_same(chain, step, tolerance=2e-2)
    assert seen == [torch.bfloat16] * 16


def test_pure_bfloat16():
    """Only close: the state itself has 8 bits, so inverting is off by a rounding."""
    chain = coupling_chain(4, dtype=torch.bfloat16)
    assert_same(chain, lambda net: train(net, example(dtype=torch.bfloat16)), tolerance=0.1)


class Returns(nn.Module):
    """A branch whose result is not its own: the recomputation must not write into it."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what
        self.weight = nn.Parameter(example(2, 2, 6, seed=4))

    def forward(self, x):
        if self.what == "input":
            return x
        if self.what == "parameter":
            return self.weight
        if self.what == "expanded parameter":
            return self.weight[:1, :, :1].expand(x.shape)
        return (x * self.weight).sigmoid()  # what backward needs


@pytest.mark.parametrize("what", ["input", "parameter", "expanded parameter", "saved result"])
def test_branches_whose_result_belongs_to_someone_else(what):
    chain = coupling_chain(2, lambda: Returns(what))
    before = copy.deepcopy(chain.state_dict())
    assert_same(chain, lambda net: train(net, example()))
    assert all(torch.equal(chain.state_dict()[name], value) for name, value in before.items())
