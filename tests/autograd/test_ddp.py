"""DistributedDataParallel: two processes, each with half of the batch, find the gradients of one with all of it."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_invertible.autograd import InvertibleSequential
from monai_invertible.networks.layers import AdditiveCoupling
from tests.autograd.helper import assert_close, conv_branch, example, loss

CASES = {
    "plain": {},
    "find_unused_parameters": {"find_unused_parameters": True},
    "gradient_as_bucket_view": {"gradient_as_bucket_view": True, "bucket_cap_mb": 0.001},
    "static_graph": {"static_graph": True},
    "shared": {},
    "no_sync": {},
}


class Network(nn.Module):
    """A stem, a chain and, for ``unused``, a layer that takes no part in the loss."""

    def __init__(self, shared: bool, unused: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        branches = [conv_branch() for _ in range(4)]
        couplings = [AdditiveCoupling(*branches[:2]), AdditiveCoupling(*branches[2:])]
        if shared:
            couplings += [AdditiveCoupling(branches[0], branches[3]), couplings[0]]
        self.stem = nn.Conv1d(4, 4, 1)
        self.chain = InvertibleSequential(*couplings)
        self.unused = nn.Linear(3, 3) if unused else None

    def forward(self, x):
        return self.chain(torch.tanh(self.stem(x)))


def network(case: str) -> Network:
    return Network(case == "shared", case == "find_unused_parameters").double()


def batches(case: str) -> list[torch.Tensor]:
    return [example(2, 4, 6, seed=s) for s in range(3 if case == "no_sync" else 2)]


def half_loss(y: torch.Tensor) -> torch.Tensor:
    return sum((loss(y[i : i + 1]) for i in range(len(y))), torch.zeros((), dtype=y.dtype))


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for case, options in CASES.items():
        model = network(case)
        parallel = DistributedDataParallel(model, **options)
        for i, x in enumerate(batches(case)):
            last = i + 1 == len(batches(case))
            with parallel.no_sync() if case == "no_sync" and not last else nullcontext():
                half_loss(parallel(x[rank : rank + 1])).backward()
        torch.save({k: p.grad for k, p in model.named_parameters()}, f"{folder}/{case}{rank}.pt")
        dist.barrier()
    Path(folder, f"done{rank}").touch()
    while not Path(folder, f"done{1 - rank}").exists():
        time.sleep(0.01)
    os._exit(0)  # gloo's destructors can wait for each other for ever


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs torch.distributed with gloo")
def test_gradients_of_two_processes(tmp_path):
    """DDP averages over processes, so twice its gradient is that of the sum over the batch. One test, since starting
    processes is what takes time."""
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    for case in CASES:
        model = network(case)
        for x in batches(case):
            half_loss(model(x)).backward()
        for rank in range(2):
            got = {k: g if g is None else 2 * g for k, g in torch.load(tmp_path / f"{case}{rank}.pt").items()}
            assert_close(got, {k: p.grad for k, p in model.named_parameters()})
