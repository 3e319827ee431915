"""A batch in pieces gives what the whole batch gives: results, gradients, statistics; and needs less memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from monai_invertible import InvertibleSequential
from monai_invertible.memory import LiveBytes
from monai_invertible.networks import (
    AdditiveCoupling,
    ChannelPooling,
    InvertibleBatchNorm,
    InvertibleLeakyReLU,
    IRevNet,
    LayerwiseBranch,
)
from monai_invertible.networks.layers.micro_batch_steps import combine
from monai_invertible.networks.layers.micro_batches import MicroBatchedSequential

KINDS = {
    "hybrid": {},
    "layer-wise": {"branch": None, "blocks": (1, 2), "pools": ("channel",), "negative_slope": 0.8},
}


def network(kind, micro_batches, **options):
    torch.manual_seed(0)
    net = IRevNet(2, 3, 10, **{"channels": 4, **KINDS[kind], **options}, micro_batches=micro_batches)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim == 1:
                p.add_(0.3 * torch.randn_like(p))  # scales and shifts that matter
    return net


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("micro_batches", [2, 3, 7])
def test_gradients_and_statistics_are_those_of_the_whole_batch(kind, micro_batches):
    """Also with pieces of different sizes."""
    whole, pieces = network(kind, 1, backprop="store").double(), network(kind, micro_batches).double()
    images, classes = torch.randn(7, 3, 16, 24).double(), torch.arange(7)
    found = []
    for net in (whole, pieces):
        logits = net(images)
        nn.functional.cross_entropy(logits, classes).backward()
        found.append([logits, *(p.grad for p in net.parameters()), *net.buffers()])
    for expected, value in zip(*found, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-10)
    whole.eval(), pieces.eval()
    torch.testing.assert_close(pieces(images), whole(images), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("split", [None, (2, 4)])
def test_inverse_of_a_chain(split):
    def branch(channels):
        return LayerwiseBranch(1, channels, 2)

    torch.manual_seed(0)
    a, b = split or (3, 3)
    layers = [
        InvertibleBatchNorm(6),
        InvertibleLeakyReLU(),
        *(AdditiveCoupling(branch(3), branch(3), split=split) for _ in range(2) if split is None),
        *([AdditiveCoupling(nn.Conv1d(b, a, 1), nn.Conv1d(a, b, 1), split=split)] if split else []),
        ChannelPooling((2,)),
    ]
    chain = MicroBatchedSequential(*layers, micro_batches=3).double()
    state = [torch.randn(n, 6, 8).double() for n in (3, 2, 2)]
    outputs = chain(*state)
    assert [len(y) for y in outputs[-3:]] == [3, 2, 2]
    for back, x in zip(chain.inverse(*outputs), state, strict=True):
        assert torch.allclose(back, x, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_need_less_memory(kind):
    def peak(micro_batches):
        with FakeTensorMode():
            net = network(kind, micro_batches, channels=8)
            images = torch.rand(512, 3, 16, 16)
            with LiveBytes() as live:
                net(images).sum().backward()
            return live.peak

    assert peak(8) < 0.75 * peak(1)


def test_too_few_images():
    with pytest.raises(ValueError, match="each of the 4 micro-batches, got 3 images"):
        network("hybrid", 4)(torch.randn(3, 3, 16, 16))
    net = network("hybrid", 4).eval()
    assert net(torch.randn(1, 3, 16, 16)).shape == (1, 10)


def test_pieces_are_counted():
    chain = MicroBatchedSequential(InvertibleLeakyReLU(), micro_batches=2)
    with pytest.raises(ValueError, match="come in 2 pieces, got 1 tensors"):
        chain(torch.randn(2, 3))
    assert copy.deepcopy(chain).eval().pieces == 1


def test_statistics_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="AdditiveCoupling has a batch norm inside"):
        IRevNet(channels=4, branch="convolution", micro_batches=2)
    timed = LayerwiseBranch(1, 2, embedding_channels=3)
    for layer in (AdditiveCoupling(timed, timed), InvertibleSequential(InvertibleBatchNorm(4))):
        with pytest.raises(ValueError, match="has a batch norm inside"):
            MicroBatchedSequential(layer, micro_batches=2)


def test_hooks_and_numbers_that_do_not_fit():
    net = network("hybrid", 2)
    net.chain[0].register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="InvertibleBatchNorm has a hook"):
        net(torch.randn(4, 3, 16, 16))
    with pytest.raises(ValueError, match="micro_batches must be at least 1, got 0"):
        network("hybrid", 0)


def test_norms_in_evaluation_keep_their_statistics():
    whole, pieces = network("hybrid", 1).double(), network("hybrid", 2).double()
    images = torch.randn(4, 3, 16, 16).double()
    for net in (whole, pieces):
        for module in net.modules():
            if isinstance(module, InvertibleBatchNorm):
                module.eval()
    before = copy.deepcopy(list(pieces.buffers()))
    torch.testing.assert_close(pieces(images), whole(images))
    pieces(images).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(pieces.buffers(), before, strict=True))


def test_half_precision_counts_far():
    moments = combine(torch.ones(4, 2).half(), [torch.empty(1, 2, 300, 300, dtype=torch.half)] * 2)
    assert moments[2] == 180_000 and all(torch.equal(m, torch.ones(2).half()) for m in moments[:2])
