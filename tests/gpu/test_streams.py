"""Streams: a recomputed tensor is there when a stream reads it, whichever stream asked for it first.

Autograd runs each node of backward on the stream of its forward, and makes a stream wait where a gradient goes from one
to another. What the engine recomputes is handed over inside a node, where nobody waits for it. So each case keeps the
stream that produces busy: a reader that does not wait finds memory that was not written yet.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.autograd.helper import assert_same, loss, train
from tests.gpu.helper import chain, dropout, occupy, plain, state

MODES = ["invert", "checkpoint"]


class OnSideStream(nn.Module):
    """A branch that computes on a stream of its own."""

    streams: list[torch.cuda.Stream] = []  # of the class: a stream cannot be copied with the network

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x):
        main, side = torch.cuda.current_stream(), self.streams[0]
        side.wait_stream(main)
        x.record_stream(side)
        with torch.cuda.stream(side):
            occupy()
            y = self.branch(x)
        main.wait_stream(side)
        y.record_stream(main)
        return y


@pytest.fixture
def side(cuda):
    OnSideStream.streams[:] = [torch.cuda.Stream()]
    yield OnSideStream.streams[0]
    torch.cuda.synchronize()
    OnSideStream.streams.clear()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("branch", [plain, dropout], ids=lambda b: b.__name__)
def test_whole_step_on_a_side_stream(cuda, side, branch, mode):
    def step(net):
        x = state(cuda)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            occupy()
            found = train(net, x)
        torch.cuda.current_stream().wait_stream(side)
        return found

    assert_same(chain(cuda, branch), step, mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("branch", [plain, dropout], ids=lambda b: b.__name__)
def test_forward_on_a_side_stream_and_backward_called_from_another(cuda, side, branch, mode):
    def step(net):
        x = state(cuda).requires_grad_()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            occupy()
            y = net(x)
        torch.cuda.current_stream().wait_stream(side)
        y.record_stream(torch.cuda.current_stream())
        loss(y).backward()
        return x.grad

    assert_same(chain(cuda, branch), step, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_two_chains_on_two_streams(cuda, side, mode):
    """The first on a side stream, the second, which reads its output twice, on the stream of the caller."""

    def step(net):
        x = state(cuda).requires_grad_()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            occupy()
            y = net[0](x)
        torch.cuda.current_stream().wait_stream(side)
        y.record_stream(torch.cuda.current_stream())
        loss(net[1](y), torch.tanh(y)).backward()
        return x.grad

    assert_same(nn.ModuleList([chain(cuda), chain(cuda, dropout)]), step, mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("both", [False, True], ids=["one branch", "both branches"])
def test_branches_of_one_chain_on_a_side_stream(cuda, side, both, mode):
    """A part of the chain's graph belongs to another stream than the rest."""
    net = chain(cuda)
    for layer in net:
        layer.f = OnSideStream(layer.f)
        layer.g = OnSideStream(layer.g) if both else layer.g
    assert_same(net, lambda net: train(net, state(cuda)), mode=mode)


def test_context_from_a_side_stream(cuda, side):
    """It is ready for the stream that runs the chain, and so it must be when backward reads it again."""

    class Scaled(nn.Module):
        def __init__(self, dims):
            super().__init__()
            self.branch = plain(dims)

        def forward(self, x, scale):
            return self.branch(x) * torch.exp(scale)

    def step(net):
        scale = torch.full((1, 1, 1, 1), 0.3, dtype=torch.float64, device=cuda, requires_grad=True)
        x = state(cuda).requires_grad_()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            occupy()
            context = torch.tanh(scale)
        torch.cuda.current_stream().wait_stream(side)
        context.record_stream(torch.cuda.current_stream())
        loss(net(x, scale=context)).backward()
        return x.grad, scale.grad

    assert_same(chain(cuda, Scaled), step)
