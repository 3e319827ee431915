"""Living bytes on graphs small enough to count by hand; 1000 float32 numbers are 4000 bytes."""

from __future__ import annotations

import gc
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from monai_invertible.memory import LiveBytes

N = 4000


@pytest.fixture(params=["real", "fake"])
def tensors(request):
    """Every case on real tensors and on fake ones."""
    with FakeTensorMode() if request.param == "fake" else nullcontext():
        yield request.param


def test_new_tensor_is_counted_until_it_is_dropped(tensors):
    with LiveBytes() as live:
        x = torch.zeros(1000)
        assert live.current == N
        y = x + 1
        assert live.current == 2 * N
        del x
        assert live.current == N
        del y
    assert (live.current, live.peak) == (0, 2 * N)


def test_views_and_in_place_operations_are_counted_once(tensors):
    with LiveBytes() as live:
        x = torch.zeros(10, 100)
        view = x.t()[3:].unsqueeze(0)
        x.add_(1).mul_(2)
        assert live.current == N
        del x
        assert live.current == N  # the view holds the whole storage
        del view
        assert live.current == 0


def test_existing_tensors_and_their_views_are_free(tensors):
    x = torch.zeros(10, 100)
    with LiveBytes() as live:
        y = x.view(1000)
        y.add_(1)
        z = y.detach()
        assert live.current == 0
    del z


def test_included_tensors_are_counted_once_from_the_start(tensors):
    layer = nn.Linear(10, 10)
    with LiveBytes(include=[*layer.parameters(), layer.weight.view(-1)]) as live:
        assert live.current == 440
        y = layer.weight.detach()
        assert live.current == 440
        del layer, y
        assert live.current == 0


def test_torch_tensor_literal_is_new():
    with LiveBytes() as live:
        x = torch.tensor([1.0] * 1000)
        assert live.current == N
    del x


def test_operation_with_several_outputs(tensors):
    x = torch.zeros(10, 100)
    with LiveBytes() as live:
        values, indices = x.sort(dim=1)
        assert live.current == N + 2 * N
        halves = values.chunk(2)
        assert live.current == 3 * N
        del indices, values
        assert live.current == N
        del halves
        assert live.current == 0


def test_tensors_kept_by_the_graph_alone_are_counted(tensors):
    x = torch.zeros(1000, requires_grad=True)
    with LiveBytes() as live:
        y = x.exp().sin().tanh()  # exp keeps its result, sin its input (the same), tanh its result
        assert live.current == 2 * N
        live.mark("forward")
        y.sum().backward()
        live.mark("backward")
        assert live.current == 2 * N  # y and x.grad; the graph's tensors are gone
        assert x.grad is not None
        del y
        assert live.current == N
    assert live.phases["forward"].current == 2 * N


def test_dropping_the_graph_without_backward_frees_it(tensors):
    x = torch.zeros(1000, requires_grad=True)
    with LiveBytes() as live:
        y = x.exp().sin().tanh()
        del y
        assert live.current == 0


def test_retained_graph_stays_counted(tensors):
    x = torch.zeros(1000, requires_grad=True)
    with LiveBytes() as live:
        y = x.exp().tanh().sum()
        y.backward(retain_graph=True)
        assert live.current == 3 * N + 4
        y.backward()
        del y
        assert live.current == N


def test_kept_bytes_agree_with_saved_tensors_hooks():
    network = nn.Sequential(
        nn.Conv3d(2, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.LeakyReLU(0.1), nn.Conv3d(4, 4, 3, padding=1), nn.Tanh()
    )
    x = torch.randn(1, 2, 8, 8, 8)
    ours = {t.untyped_storage()._cdata for t in (*network.parameters(), x)}
    saved: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in ours:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = network(x)
    del y
    gc.collect()
    with LiveBytes() as live:
        y = network(x)  # Tanh saves its output, so y itself is among the saved
        assert live.current == sum(saved.values())
        y.sum().backward()
        del y
        assert live.current == sum(p.numel() * 4 for p in network.parameters())


def test_backward_peak(tensors):
    x = torch.zeros(1000, requires_grad=True)
    with LiveBytes() as live:
        y = x.exp().exp().exp().sum()
        live.mark("forward")
        y.backward()
        live.mark("backward")
    assert live.phases["forward"] == (3 * N + 4, 3 * N + 4)
    # three results, the output, its gradient of one, and two gradients: the one that comes in and the one that goes out
    assert live.phases["backward"].peak == live.peak == 4 * N + 8


def test_reset_peak(tensors):
    with LiveBytes() as live:
        torch.zeros(1000)
        assert (live.current, live.peak) == (0, N)
        live.reset_peak()
        assert live.peak == 0


def test_resized_and_exchanged_storages_are_seen():
    x, y = torch.zeros(1000), torch.zeros(1000)
    with LiveBytes(include=[x]) as live:
        x.untyped_storage().resize_(0)
        assert live.current == 0
        x.untyped_storage().resize_(N)
        assert live.current == N
        x.resize_(2000)
        assert live.current == 2 * N
        x.set_(y)  # y was there before and is not counted; the old storage of x is freed
        assert live.current == 0
        z = torch.zeros(500)
        x.set_(z)
        del z
        assert live.current == N // 2


def test_resize_is_restored_after_the_context():
    before = torch.UntypedStorage.resize_
    with pytest.raises(RuntimeError, match="stop"), LiveBytes(), LiveBytes():
        raise RuntimeError("stop")
    assert torch.UntypedStorage.resize_ is before


def test_counter_changes_nothing():
    network = nn.Sequential(nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 1))
    x = torch.randn(4, 10)
    plain = torch.autograd.grad(network(x).sum(), list(network.parameters()))
    with LiveBytes():
        counted = torch.autograd.grad(network(x).sum(), list(network.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(plain, counted, strict=True))
