"""torch.compile on the device: inductor's own kernels, one graph, and the last, smaller batch of an epoch."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from monai_invertible.autograd import set_backprop
from tests.autograd.helper import assert_close, train
from tests.gpu.helper import chain, conv, dropout, snapshot, state

pytestmark = [
    # The compilers of torch use deprecated parts of torch, and look at ``grad`` of every tensor.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


@pytest.fixture(autouse=True)
def fresh_compiler(device):
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.reset()


def smooth(dims):
    return nn.Sequential(conv(dims), nn.Tanh())


class Network(nn.Module):
    """A chain between two layers."""

    def __init__(self, chain) -> None:
        super().__init__()
        self.chain = chain
        self.first, self.last = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        return self.last(self.chain(torch.tanh(self.first(x))))


def assert_compiled_same(network, compiled, batches, tolerance):
    stored = set_backprop(copy.deepcopy(network), "store")
    for seed, batch in enumerate(batches):
        x = state(next(network.parameters()).device, seed=seed, dtype=next(network.parameters()).dtype)
        x = x.repeat(-(-batch // len(x)), 1, 1, 1)[:batch]
        found = []
        for run, net in ((compiled, network), (stored, stored)):
            torch.manual_seed(7)
            net.zero_grad()
            found.append(snapshot(net, **train(run, x)))
        assert_close(found[0], found[1], tolerance)


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
def test_batches_of_other_sizes_in_one_graph(device, mode):
    """fullgraph raises at a break; a size that changes makes one more graph, with a symbol for it, and no third."""
    network = set_backprop(Network(chain(device, smooth)).to(device).double(), mode)
    compiled = torch.compile(network, backend="inductor", fullgraph=True)
    assert_compiled_same(network, compiled, (2, 4, 3, 6), 1e-10)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2


def test_single_precision(device):
    network = Network(chain(device, smooth, dtype=torch.float32)).to(device)
    assert_compiled_same(network, torch.compile(network, fullgraph=True), (2,), 2e-3)


def test_random_branches_fall_back_to_the_eager_engine(device):
    network = Network(chain(device, dropout)).to(device).double()
    assert_compiled_same(network, torch.compile(network), (2, 3), 1e-10)


def test_compiled_branches_in_the_eager_engine(device):
    network = chain(device, smooth, 2)
    stored = copy.deepcopy(network)
    for layer in network:
        layer.f, layer.g = torch.compile(layer.f), torch.compile(layer.g)
    for seed in (1, 2):
        found = []
        for net in (network, set_backprop(stored, "store")):
            net.zero_grad()
            step = train(net, state(device, seed=seed))
            gradients = {str(i): p.grad.clone() for i, p in enumerate(net.parameters())}
            found.append(step | gradients)
        assert_close(*found)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0  # something was compiled


def test_reduced_overhead(cuda):
    """Inductor captures the kernels in CUDA graphs, whose memory the next step overwrites."""
    network = Network(chain(cuda, smooth, 2)).to(cuda).double()
    compiled = torch.compile(network, mode="reduce-overhead", fullgraph=True)
    stored = set_backprop(copy.deepcopy(network), "store")
    for seed in range(4):
        found = []
        for run, net in ((compiled, network), (stored, stored)):
            torch.compiler.cudagraph_mark_step_begin()
            net.zero_grad()
            found.append(snapshot(net, **train(run, state(cuda, seed=seed))))
        assert_close(*found)
