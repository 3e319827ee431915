"""Frozen, shared, hooked, replaced and changed parameters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_invertible.autograd import InvertibleSequential
from monai_invertible.networks.layers import AdditiveCoupling
from tests.autograd.helper import assert_same, conv_branch, coupling_chain, example, loss, train


def linear_branch():
    """What a linear map saves depends on which of its input and weight want a gradient."""
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6, bias=False), nn.PReLU(2))


BRANCHES = pytest.mark.parametrize("branch", [conv_branch, linear_branch])


@BRANCHES
@pytest.mark.parametrize("frozen", ["", "0", "0.f", "2.g", "bias", "weight", "1.f.0.weight"])
@pytest.mark.parametrize("wanted", [True, False], ids=["input wanted", "input not wanted"])
def test_frozen_parameters(branch, frozen, wanted):
    chain = coupling_chain(3, branch)
    for name, p in chain.named_parameters():
        p.requires_grad_(not (name.startswith(frozen) or name.endswith(frozen)))

    def step(net):
        x = example().requires_grad_(wanted)
        y = net(x)
        assert y.requires_grad == (wanted or frozen != "")
        if y.requires_grad:
            loss(y).backward()
        return [y.detach(), x.grad]

    assert_same(chain, step)


def test_all_but_the_last_frozen():
    chain = coupling_chain()
    chain[:2].requires_grad_(False)
    chain[2].f.requires_grad_(False)
    got = assert_same(chain, lambda net: loss(net(example())).backward())
    assert {k[:3] for k, g in got["parameters"].items() if g is not None} == {"2.g"}


@BRANCHES
@pytest.mark.parametrize("before", [True, False])
def test_requires_grad_switched_between_forward_and_backward(branch, before):
    """Plain autograd goes by what was so in the forward; a parameter frozen since gets no gradient kept."""

    def step(net):
        net[1].requires_grad_(before)
        x = example().requires_grad_()
        y = net(x)
        net[1].requires_grad_(not before)
        loss(y).backward()
        assert all(p.requires_grad is not before for p in net[1].parameters())
        return x.grad

    assert_same(coupling_chain(3, branch), step)


def test_branch_shared_by_couplings():
    torch.manual_seed(0)
    a, b = conv_branch(), conv_branch()
    chain = InvertibleSequential(AdditiveCoupling(a, b), AdditiveCoupling(b, a), AdditiveCoupling(a, a)).double()
    assert_same(chain, lambda net: train(net, example()))


def test_coupling_twice_in_a_chain():
    torch.manual_seed(0)
    a, b = AdditiveCoupling(conv_branch(), conv_branch()), AdditiveCoupling(conv_branch(), None)
    chain = InvertibleSequential(a, b, a, a).double()
    assert_same(chain, lambda net: train(net, example()))


def test_weight_tied_within_a_branch():
    def branch():
        layers = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Tanh(), nn.Conv1d(2, 2, 3, padding=1))
        layers[2].weight = layers[0].weight
        return layers

    assert_same(coupling_chain(3, branch), lambda net: train(net, example()))


def test_parameter_is_the_state():
    """A learned initial state, expanded over the batch; a parameter and a state in one storage."""

    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.initial = nn.Parameter(example(1, 4, 6))
            self.chain = coupling_chain()

        def forward(self, x):
            return self.chain(self.initial.expand(2, 4, 6)) + x + self.chain(self.initial)

    torch.manual_seed(0)
    assert_same(Learned(), lambda net: train(net, example()))


def test_tensor_hooks_fire_once_with_the_full_gradient():
    def step(net):
        fired = []
        for p in net.parameters():
            p.register_hook(lambda g: fired.append("tensor") or 2 * g)
            p.register_post_accumulate_grad_hook(lambda p: fired.append("accumulated"))
        train(net, example())
        n = len(list(net.parameters()))
        assert sorted(fired) == ["accumulated"] * n + ["tensor"] * n

    torch.manual_seed(0)
    shared = conv_branch()
    chain = InvertibleSequential(AdditiveCoupling(shared, conv_branch()), AdditiveCoupling(shared, None)).double()
    assert_same(chain, step)


@pytest.mark.parametrize("name", ["0.f.0.weight", "1.g.0.bias", "2.g.3.bias"])
def test_parameter_changed_in_place_raises(name):
    """Also a bias, which plain autograd does not save but recomputation reads."""
    chain = coupling_chain()
    y = chain(example())
    with torch.no_grad():
        chain.get_parameter(name).mul_(1.5)
    with pytest.raises(RuntimeError, match="parameter .*changed in place|modified by an inplace operation"):
        loss(y).backward()


def test_optimizer_step_before_backward_raises():
    chain = coupling_chain()
    optimizer = torch.optim.SGD(chain.parameters(), lr=0.1)
    loss(chain(example())).backward()
    y = chain(example())
    optimizer.step()
    with pytest.raises(RuntimeError, match="Call backward before"):
        loss(y).backward()


def test_buffer_changed_in_place_raises():
    chain = coupling_chain(3, lambda: nn.Sequential(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2))).eval()
    y = chain(example())
    chain[0].f[1].running_mean.add_(1)
    with pytest.raises(RuntimeError, match="buffer 'running_mean' of BatchNorm1d was changed in place"):
        loss(y).backward()


def test_parameter_replaced_between_forward_and_backward():
    def step(net):
        x = example().requires_grad_()
        y = net(x)
        net[1].f[0].weight = nn.Parameter(torch.ones_like(net[1].f[0].weight))
        loss(y).backward()
        assert (net[1].f[0].weight == 1).all()
        return x.grad

    assert_same(coupling_chain(), step)


def test_parameters_lent_by_functional_call():
    """As in meta-learning: the parameters of the forward are results of a graph of their own."""

    def step(net):
        scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        lent = {k: p * scale for k, p in net.named_parameters()}
        loss(torch.func.functional_call(net, lent, (example(),))).backward()
        return scale.grad

    assert_same(coupling_chain(), step)


def test_two_optimizer_steps():
    def step(net):
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        for seed in range(2):
            optimizer.zero_grad()
            loss(net(example(seed=seed))).backward()
            optimizer.step()
        return [p.detach().clone() for p in net.parameters()]

    # Adam divides by the gradient's size, which is rounding for a bias in front of a norm.
    branch = lambda: nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Tanh())  # noqa: E731
    assert_same(coupling_chain(3, branch), step)
