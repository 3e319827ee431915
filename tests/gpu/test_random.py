"""The devices' random streams: gradients with the masks of the forward, and the streams afterwards as stored.

A GPU has a generator of its own, whose state is a seed and an offset; a branch may draw from it, from the processor's,
or from both.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.autograd.helper import assert_same, loss, train
from tests.gpu.helper import HALF, chain, conv, dropout, state

MODES = ["invert", "checkpoint"]


class Noise(nn.Module):
    """Draws on the device, by functions and in place."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.conv = conv(dims)

    def forward(self, x):
        h = torch.tanh(self.conv(x))
        h = h * torch.rand_like(h) + torch.randn(h.shape, dtype=h.dtype, device=h.device)
        h = h * torch.bernoulli(torch.full_like(h, 0.5)) + 0.1 * torch.empty_like(h).exponential_()
        return h * torch.randperm(h.shape[-1], device=h.device) + h * torch.multinomial(torch.ones_like(h[0, 0]), 1)


def rrelu(dims: int) -> nn.Module:
    """Saves its random slopes for backward before it has drawn them."""
    return nn.Sequential(conv(dims), nn.RReLU())


class TwoStreams(nn.Module):
    """Draws on the processor and on the device."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.conv = conv(dims)

    def forward(self, x):
        h = F.dropout(torch.tanh(self.conv(x)), 0.3)
        return h * torch.rand(h.shape[2:], dtype=h.dtype).to(h.device) + F.dropout(h, 0.5)


class Timed(nn.Module):
    """Reads a context that lies on the processor, drops some of it there, and of its state on the device."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.conv = conv(dims)
        self.embedding = nn.Linear(3, HALF)

    def forward(self, x, time):
        scale = self.embedding(F.dropout(time, 0.3).to(x.device))
        return F.dropout(torch.tanh(self.conv(x)), 0.3) * scale[:, :, None, None]


class Attention(nn.Module):
    """The fused kernels keep seed and offset of their mask instead of the mask."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(HALF, 3 * HALF)

    def forward(self, x):
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2))[:, None].chunk(3, dim=-1)
        h = F.scaled_dot_product_attention(q, k, v, dropout_p=0.25)[:, 0]
        return h.transpose(1, 2).reshape(x.shape)


def step(net, device, **context):
    """Two forwards before a backward, so that the stream has moved on."""
    first = train(net, state(device), **context)
    a, b = net(state(device, seed=2), **context), net(state(device, seed=3), **context)
    (loss(a) + loss(b)).backward()
    return first | {"device": torch.rand(3, device=device), "processor": torch.rand(3)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("branch", [dropout, rrelu, Noise, TwoStreams], ids=lambda b: b.__name__)
def test_masks_are_repeated(device, branch, mode):
    assert_same(chain(device, branch), partial(step, device=device), mode=mode)


@pytest.mark.parametrize("dims", [1, 3])
def test_masks_are_repeated_in_other_dimensions(device, dims):
    assert_same(chain(device, dropout, dims=dims), lambda net: train(net, state(device, dims)))


@pytest.mark.parametrize("mode", MODES)
def test_context_on_the_processor(device, mode):
    time = torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3)
    found = assert_same(chain(device, Timed), partial(step, device=device, time=time), mode=mode)
    assert found["found"]["time"].device.type == "cpu"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_dropout_in_fused_attention(device, dtype, mode):
    """Which kernel is taken depends on the precision; bfloat16 by autocast."""

    def attend(net):
        x = state(device, dtype=torch.float32).requires_grad_()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            y = net(x)
        loss(y).backward()
        return y, x.grad, torch.rand(3, device=device)

    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    assert_same(chain(device, Attention, dtype=torch.float32), attend, tolerance, mode)


@pytest.mark.parametrize("mode", MODES)
def test_stream_set_between_forward_and_backward_is_left_alone(device, mode):
    def reseeded(net):
        y = net(state(device))
        torch.manual_seed(99)
        before = torch.rand(1, device=device)
        loss(y).backward()
        return before, torch.rand(2, device=device), torch.rand(2)

    assert_same(chain(device, TwoStreams), reseeded, mode=mode)


def test_state_from_pinned_memory(device):
    """A batch still on its way to the device when the forward begins."""

    def pinned(net):
        batch = state(torch.device("cpu"))
        batch = batch.pin_memory() if device.type == "cuda" else batch
        return train(net, batch.to(device, non_blocking=True))

    assert_same(chain(device, dropout), pinned)
