"""What a branch may do: show or read other tensors, differentiate, checkpoint, use functions of its own, fail."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from monai_invertible.autograd import InvertibleSequential
from monai_invertible.networks.layers import AdditiveCoupling
from tests.autograd.helper import assert_same, conv_branch, coupling_chain, example, loss, train


class Leaking(nn.Module):
    """A branch that shows an intermediate result."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x):
        self.hidden = torch.tanh(self.conv(x))
        return self.hidden * 2


@pytest.mark.parametrize("kept", ["output in loss", "output kept", "output dropped"])
def test_intermediate_leaked_into_the_loss(kept):
    def step(net):
        x = example().requires_grad_()
        y = net(x)
        total = loss(net[1].f.hidden) + loss(net[0].g.hidden)
        if kept == "output in loss":
            total = total + loss(y)
        if kept == "output dropped":
            del y
        total.backward()
        return x.grad

    assert_same(coupling_chain(3, Leaking), step)


def test_side_graph_dropped_before_the_backward_of_the_chain():
    """Its end says nothing about the chain's graph, which is used twice afterwards."""

    class Monitored(Leaking):
        def forward(self, x):
            y = super().forward(x)
            self.monitor = torch.sigmoid(self.hidden).exp()
            return y

    def step(net):
        x = example().requires_grad_()
        y, g = net(x), net[0].g
        side = torch.autograd.grad(g.monitor.sum(), g.hidden, retain_graph=True)[0]
        g.monitor = None
        loss(y).backward(retain_graph=True)
        loss(y).backward()
        return [x.grad, side]

    assert_same(coupling_chain(3, Monitored), step)


class Capturing(nn.Module):
    """A branch that reads a tensor which is neither parameter, buffer nor context."""

    def __init__(self, captured) -> None:
        super().__init__()
        self.captured = [captured]
        self.conv = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x):
        return torch.tanh(self.conv(x)) * self.captured[0]


def test_captured_tensor_gets_its_gradient():
    def step(net):
        leaf = torch.full((1,), 0.7, dtype=torch.float64, requires_grad=True)
        for m in net.modules():
            if isinstance(m, Capturing):
                m.captured = [leaf * 2]
        loss(net(example())).backward()
        return leaf.grad

    assert_same(coupling_chain(3, lambda: Capturing(None)), step)


def test_captured_tensor_changed_in_place_raises():
    captured = torch.ones(1, dtype=torch.float64)
    y = coupling_chain(3, lambda: Capturing(captured))(example())
    captured.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss(y).backward()


class Energy(nn.Module):
    """A branch that is the gradient of an energy."""

    def __init__(self, create_graph: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1)
        self.create_graph = create_graph

    def forward(self, x):
        with torch.enable_grad():
            x = x if x.requires_grad and self.create_graph else x.detach().requires_grad_()
            energy = torch.tanh(self.conv(x)).square().sum()
            (gradient,) = torch.autograd.grad(energy, x, create_graph=self.create_graph)
        return gradient + self.conv(x.detach())


@pytest.mark.parametrize("create_graph", [True, False])
def test_autograd_grad_inside_a_branch(create_graph):
    assert_same(coupling_chain(3, lambda: Energy(create_graph)), lambda net: train(net, example()))


class Score(nn.Module):
    """A branch that is the gradient of a random energy, between layers with random numbers and hooks of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.spectral_norm(nn.Conv1d(2, 2, 3, padding=1))
        self.dropout = nn.Dropout(0.5)
        self.last = nn.Sequential(nn.utils.spectral_norm(nn.Conv1d(2, 2, 1)), nn.Dropout(0.2))

    def forward(self, x):
        with torch.enable_grad():
            h = self.first(x)
            h = h if h.requires_grad else h.requires_grad_()
            energy = self.dropout(torch.tanh(h)).square().sum()
            (score,) = torch.autograd.grad(energy, h, create_graph=True)
        return self.last(score)


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
def test_random_energy_inside_a_branch(mode):
    """The forward asks for its own activations: they are repeated with its random numbers, which then go on."""
    assert_same(coupling_chain(3, Score), lambda net: train(net, example()), mode=mode)


def test_branch_that_differentiates_through_earlier_layers_raises():
    class Reaches(nn.Conv1d):
        def forward(self, x):
            return super().forward(x) + torch.autograd.grad(x.square().sum(), leaf, retain_graph=True)[0][:, :2]

    leaf = example().requires_grad_()
    chain = InvertibleSequential(
        AdditiveCoupling(conv_branch(), conv_branch()), AdditiveCoupling(Reaches(2, 2, 1))
    ).double()
    with pytest.raises(RuntimeError, match="differentiated through the layers before it"):
        chain(torch.tanh(leaf))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint_inside_a_branch(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Tanh(), nn.Dropout(0.3))
            self.outer = nn.Conv1d(2, 2, 1)

        def forward(self, x):
            return torch.tanh(self.outer(checkpoint(self.inner, x, use_reentrant=reentrant)))

    assert_same(coupling_chain(2, Checkpointed), lambda net: train(net, example()))


class Twice(torch.autograd.Function):
    """Reads ``ctx.saved_tensors`` twice."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x, x.exp())
        return x.exp() * x

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[1] * (1 + ctx.saved_tensors[0])


class Hiding(torch.autograd.Function):
    """Keeps a tensor on ``ctx``, where no hook can see it."""

    @staticmethod
    def forward(ctx, x):
        ctx.x = x.detach().clone()
        return x.square()

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad * ctx.x


class Custom(nn.Conv1d):
    def __init__(self, function) -> None:
        super().__init__(2, 2, 3, padding=1)
        self.function = function

    def forward(self, x):
        return torch.tanh(self.function.apply(torch.sigmoid(super().forward(x))))


def test_custom_function_that_reads_its_saved_tensors_twice():
    assert_same(coupling_chain(3, lambda: Custom(Twice)), lambda net: train(net, example()))


def test_custom_function_that_hides_tensors_is_right_and_warned_of():
    with pytest.warns(UserWarning, match="HidingBackward in Custom keeps tensors as attributes of its ctx"):
        assert_same(coupling_chain(1, lambda: Custom(Hiding)), lambda net: train(net, example()))


class Failing(nn.Module):
    """Fails at its n-th evaluation, having used everything that must be put back."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2), nn.Dropout(0.5), nn.Tanh())
        self.countdown = SimpleNamespace(left=-1)  # an object of its own is not put back after a recomputation

    def forward(self, x):
        x = self.layers(x)
        self.countdown.left -= 1
        if self.countdown.left == 0:
            raise MemoryError("out of memory")
        return x


@pytest.mark.parametrize("evaluation", [1, 2], ids=["forward", "recomputation"])
def test_exception_in_a_branch_leaves_everything_as_it_was(evaluation):
    chain = coupling_chain(3, Failing)
    expected = assert_same(chain, lambda net: train(net, example()))
    chain = coupling_chain(3, Failing)
    seen = []
    chain[1].f.layers.register_forward_hook(lambda *args: seen.append(1))
    hooks = dict(chain[1].f.layers._forward_hooks)
    chain[1].f.countdown.left = evaluation
    x = example().requires_grad_()
    torch.manual_seed(7)
    if evaluation == 2:
        y = chain(x)
        chain.eval()
    random, buffers = torch.get_rng_state(), {k: b.clone() for k, b in chain.named_buffers()}
    with pytest.raises(MemoryError):
        loss(y).backward(retain_graph=True) if evaluation == 2 else chain(x)
    assert dict(chain[1].f.layers._forward_hooks) == hooks
    assert torch.equal(x, example()) and not torch.is_autocast_enabled("cpu")
    if evaluation == 2:
        assert torch.equal(torch.get_rng_state(), random)
        assert all(torch.equal(b, buffers[k]) for k, b in chain.named_buffers())
        assert not any(m.training for m in chain.modules())
        x.grad = None
        chain.zero_grad()
        loss(y).backward()  # again, and now it works
        for k, p in chain.named_parameters():
            torch.testing.assert_close(p.grad, expected["parameters"][k], rtol=1e-9, atol=1e-9)
        assert seen == [1]
    else:
        assert_same(chain, lambda net: train(net, example()))


class Keeping(nn.Module):
    """A branch whose result somebody else holds, or whose elements share memory."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.conv = nn.Conv1d(2, 2, 3, padding=1)
        self.table = torch.linspace(0, 1, 24, dtype=torch.float64).view(2, 2, 6)  # neither parameter nor buffer
        self.held: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, x):
        if self.kind == "attribute":
            return self.table
        if self.kind == "overlapping":
            return self.conv(x).flatten(1)[:, :7].unfold(1, 6, 1)
        y = self.conv(x)
        shown = y.detach() if self.kind == "view in a list" else y
        self.held.append((shown, y.detach().clone()))
        return y


@pytest.mark.parametrize("kind", ["attribute", "overlapping", "list", "view in a list"])
def test_results_that_somebody_else_can_see_stay_as_they_are(kind):
    def step(net):
        x = example().requires_grad_()
        loss(net(x)).backward(retain_graph=True)
        loss(net(x)).backward()
        for layer in net:
            assert all(torch.equal(a, b) for branch in (layer.f, layer.g) for a, b in branch.held)
        return x.grad

    kinds = itertools.cycle(["list", kind])  # the other branch makes the chain walk back
    assert_same(coupling_chain(2, lambda: Keeping(next(kinds))), step)
