"""DistributedDataParallel with NCCL on one GPU, DataParallel, and replicas: gradients as without."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from monai_invertible.autograd import set_backprop
from tests.autograd.helper import assert_close, train
from tests.gpu.helper import batch_norm, chain, dropout, plain, snapshot, state

OPTIONS = {
    "plain": {},
    "find unused parameters": {"find_unused_parameters": True},
    "buckets": {"gradient_as_bucket_view": True, "bucket_cap_mb": 0.001},
    "static graph": {"static_graph": True},
    "no_sync": {},
}


@pytest.fixture
def group(device, tmp_path):
    """A group of this process alone."""
    backend = "nccl" if device.type == "cuda" else "gloo"
    if not dist.is_available() or not dist.is_backend_available(backend):
        pytest.skip(f"needs torch.distributed with {backend}")
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Network(nn.Module):
    def __init__(self, device, branch):
        super().__init__()
        self.stem = nn.Conv2d(16, 16, 1).to(device).double()
        self.chain = chain(device, branch)
        self.unused = nn.Linear(3, 3).to(device).double()

    def forward(self, x):
        return self.chain(torch.tanh(self.stem(x)))


def losses(network, run, device, accumulate=1, guard=nullcontext):
    """Two steps, of ``accumulate`` backwards each."""
    torch.manual_seed(7)
    for step in range(2):
        network.zero_grad()
        for part in range(accumulate):
            with nullcontext() if part + 1 == accumulate else guard():
                found = train(run, state(device, seed=3 * step + part))
    return snapshot(network, **found, **dict(network.named_buffers()))


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("branch", [plain, dropout, batch_norm], ids=lambda b: b.__name__)
@pytest.mark.parametrize("case", OPTIONS)
def test_distributed_data_parallel(device, group, case, branch, mode):
    network = set_backprop(Network(device, branch), mode)
    if case != "find unused parameters":
        network.unused = None
    stored = set_backprop(copy.deepcopy(network), "store")
    parallel = DistributedDataParallel(network, **OPTIONS[case])
    accumulate = 3 if case == "no_sync" else 1
    found = losses(network, parallel, device, accumulate, parallel.no_sync)
    assert_close(found, losses(stored, stored, device, accumulate))


def hooks(network):
    return [(k, id(h)) for k, m in network.named_modules() for h in m._forward_hooks.values()]


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("way", ["DataParallel", "replicas"])
def test_data_parallel(cuda, way, mode):
    """With one GPU ``DataParallel`` calls the module itself; a replica, as it makes for more, shares its hooks."""
    network = set_backprop(Network(cuda, dropout), mode)
    network.unused, seen = None, []
    stored = set_backprop(copy.deepcopy(network), "store")
    network.chain[0].f.register_forward_hook(lambda *args: seen.append(len(args)))
    before = hooks(network)
    if way == "DataParallel":
        run = DataParallel(network, device_ids=[0])
    else:

        def run(x):
            (replica,) = nn.parallel.replicate(network, [cuda.index or 0])
            return replica(x)

    assert_close(losses(network, run, cuda), losses(stored, stored, cuda))
    assert hooks(network) == before and len(seen) == 2
