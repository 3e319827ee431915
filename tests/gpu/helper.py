"""What the GPU's tests share: branches whose kernels a GPU has to itself, and work that keeps a stream busy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from monai_invertible.autograd import InvertibleSequential
from tests.autograd.helper import coupling_chain, example

HALF = 8  # channels that a branch sees
SHAPES = {1: (2, 2 * HALF, 40), 2: (2, 2 * HALF, 12, 10), 3: (2, 2 * HALF, 8, 6, 10)}
CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
INSTANCE_NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
CHANNEL_DROPOUT = {1: nn.Dropout1d, 2: nn.Dropout2d, 3: nn.Dropout3d}


def conv(dims: int) -> nn.Module:
    return CONV[dims](HALF, HALF, 3, padding=1)


def plain(dims: int = 2) -> nn.Module:
    return nn.Sequential(conv(dims), INSTANCE_NORM[dims](HALF), nn.LeakyReLU(), conv(dims))


def dropout(dims: int = 2) -> nn.Module:
    return nn.Sequential(conv(dims), nn.Dropout(0.4), nn.Tanh(), CHANNEL_DROPOUT[dims](0.2))


def batch_norm(dims: int = 2) -> nn.Module:
    return nn.Sequential(conv(dims), BATCH_NORM[dims](HALF), nn.Tanh())


def chain(
    device: torch.device,
    branch: Callable[[int], nn.Module] = plain,
    depth: int = 3,
    *,
    dims: int = 2,
    dtype: torch.dtype = torch.float64,
) -> InvertibleSequential:
    """A chain of couplings; double precision, so that only the engine's own faults are seen."""
    return coupling_chain(depth, partial(branch, dims), dtype=dtype).to(device)


def state(device: torch.device, dims: int = 2, *, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return example(*SHAPES[dims], seed=seed, dtype=dtype).to(device)


def snapshot(network: nn.Module, **more: Tensor) -> dict[str, Any]:
    """Copies of the parameters' gradients and of more tensors."""
    gradients = {k: None if p.grad is None else p.grad.clone() for k, p in network.named_parameters()}
    return gradients | {k: t.detach().clone() for k, t in more.items()}


def occupy(side: int = 4096, products: int = 20) -> None:
    """Tens of milliseconds of work for the current stream: who reads too early, without waiting for it, is found."""
    a = torch.ones(side, side, device="cuda")
    for _ in range(products):
        a = a @ a * 0
