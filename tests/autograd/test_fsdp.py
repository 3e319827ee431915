"""fully_shard (FSDP2): two processes, each with half of the parameters and batch, find the gradients of one process."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from monai_invertible.autograd import InvertibleSequential
from monai_invertible.networks.layers import AdditiveCoupling
from tests.autograd.helper import assert_close, conv_branch, example, loss

WHERE = ("branches", "branches and root", "root", "couplings", "chain")
CASES = {f"{where}, {'' if again else 'not '}sharded again": (where, again, {}) for where in WHERE for again in (1, 0)}
CASES |= {f"{where}, one half has no gradient": (where, 1, {"channels": 2}) for where in ("branches", "couplings")}
CASES |= {f"{where}, dropout": (where, 1, {"dropout": 0.5}) for where in ("branches", "chain")}
CASES |= {f"{where}, inverse": (where, 1, {"inverse": True}) for where in ("branches", "couplings", "chain")}


class Network(nn.Module):
    """A stem and a chain, in which dropout draws other numbers for each process's half of the batch."""

    def __init__(self, dropout: float = 0.0, inverse: bool = False, channels: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        branches = [nn.Sequential(conv_branch(), nn.Dropout(dropout)) for _ in range(4)]
        self.stem = nn.Conv1d(4, 4, 1)
        self.chain = InvertibleSequential(AdditiveCoupling(*branches[:2]), AdditiveCoupling(*branches[2:]))
        self.inverse = inverse
        self.channels = channels

    def forward(self, x):
        h = torch.tanh(self.stem(x))
        y = self.chain.inverse(h) if self.inverse else self.chain(h)
        return y[:, -self.channels :].clone()


def sharded(network: Network, where: str, again: int, registered: bool = True) -> Network:
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    layers = list(network.chain)
    modules = {"branches": [b for layer in layers for b in (layer.f, layer.g)], "couplings": layers, "root": []}
    modules["chain"] = [network.chain]
    for module in modules[where.removesuffix(" and root")]:
        fully_shard(module, reshard_after_forward=bool(again))
        if hasattr(module, "inverse") and registered:
            register_fsdp_forward_method(module, "inverse")
    return fully_shard(network, reshard_after_forward=bool(again)) if "root" in where else network


def backward(network: Network, rank: int) -> None:
    """Two accumulated steps with one process's half of the batch."""
    for seed in (1, 2):
        torch.manual_seed(10 * seed + rank)
        loss(network(example(2, 4, 6, seed=seed)[rank : rank + 1])).backward()


def whole(gradient: torch.Tensor | None) -> torch.Tensor | None:
    """The sum over both processes; fully_shard takes the mean, and nobody sums what is not sharded."""
    from torch.distributed.tensor import DTensor

    if gradient is None:
        return None
    if isinstance(gradient, DTensor):
        return 2 * gradient.full_tensor()
    dist.all_reduce(gradient)
    return gradient


def errors() -> dict[str, str]:
    """What is refused, and how."""
    found = {}
    for where in ("couplings", "chain"):
        try:
            sharded(Network(inverse=True).double(), where, 1, registered=False)(example())
        except RuntimeError as error:
            found[where] = str(error)
    network = sharded(Network().double(), "branches", 1)
    y = network(example()).sum()
    with torch.no_grad():
        for p in network.chain.parameters():
            p.mul_(1 + 1e-9)
    try:
        y.backward()
    except RuntimeError as error:
        found["step"] = str(error)
    return found


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for i, (where, again, options) in enumerate(CASES.values()):
        network = sharded(Network(**options).double(), where, again)
        backward(network, rank)
        torch.save({k: whole(p.grad) for k, p in network.named_parameters()}, f"{folder}/{i} {rank}.pt")
    torch.save(errors(), f"{folder}/errors {rank}.pt")
    Path(folder, f"done{rank}").touch()
    while not Path(folder, f"done{1 - rank}").exists():
        time.sleep(0.01)
    os._exit(0)  # gloo's destructors can wait for each other for ever


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs torch.distributed with gloo")
def test_gradients_of_two_processes(tmp_path):
    """One test, since starting processes is what takes time."""
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    for i, (case, (_, _, options)) in enumerate(CASES.items()):
        network = Network(**options).double()
        for rank in range(2):
            backward(network, rank)
        expected = {k: torch.zeros_like(p) if p.grad is None else p.grad for k, p in network.named_parameters()}
        for rank in range(2):
            got = torch.load(tmp_path / f"{i} {rank}.pt")
            zeros = {k: torch.zeros_like(v) if got[k] is None else got[k] for k, v in expected.items()}
            try:
                assert_close(zeros, expected)
            except AssertionError as error:
                raise AssertionError(f"{case}: {error}") from error
    for rank in range(2):
        found = torch.load(tmp_path / f"errors {rank}.pt")
        assert "still shared out" in found["couplings"] and "register_fsdp_forward_method" in found["couplings"]
        assert "still shared out" in found["chain"] and "register_fsdp_forward_method" in found["chain"]
        assert "was changed in place between forward and backward" in found["step"]
