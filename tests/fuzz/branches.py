"""Random branches of couplings: all that a user may put there, from plain convolutions to what reads random numbers.

Every branch takes ``(B, inputs, *spatial)`` to ``(B, outputs, *spatial)``, and time from the context if it names it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from monai_invertible.autograd.module import as_tuple
from tests.fuzz.choose import Choose

__all__ = ["Attributes", "layers_of_branch", "random_branch"]

CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
DROPOUT = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class Plain(nn.Module):
    """A branch that takes no context, in front of one that does."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Last(nn.Module):
    """A chain as a part of a branch; statistics that it leaves in the state are dropped."""

    def __init__(self, chain: nn.Module) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        return as_tuple(self.chain(x, **context))[-1]


class Conditioned(Plain):
    """Reads time from the context."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(self.layers(x)) * torch.exp(time)


class ContextOnly(Plain):
    """Takes any context, and reads of it what there is."""

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        y = self.layers(x)
        return y + context["time"] if "time" in context else y


class Attributes(nn.Module):
    """Reads what a module can hold besides parameters and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = 1.5
        self.kind = "tanh"
        self.numbers = [0.5, 2.0]
        self.table = {"shift": 0.25}
        self.pair = (1.0, 0.5)
        self.tensor = torch.tensor(0.75, dtype=torch.float64)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        y = self.factor * (torch.tanh(x) if self.kind == "tanh" else torch.sigmoid(x)) + self.numbers[0] * x.square()
        return y * (1 + 0.125 * (self.calls % 2)) + self.table["shift"] * self.pair[1] * self.tensor.to(x.dtype) * x


class Noise(nn.Module):
    """Draws from one of the random streams a program may have."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.generator = torch.Generator().manual_seed(3) if source == "own generator" else None

    def forward(self, x: Tensor) -> Tensor:
        if self.source == "python random":
            return x * (1 + random.random())
        if self.source == "numpy random":
            return x * (1 + float(np.random.rand()))
        if self.source == "functional dropout":
            return F.dropout(x, 0.4)
        if self.source == "random choice":
            return torch.tanh(x) if torch.rand(()) < 0.5 else torch.sigmoid(x)
        noise = torch.rand(x.shape, generator=self.generator, dtype=x.dtype)
        return x * (0.5 + noise)


class Counted(nn.Module):
    """Has buffers that each training forward moves, and reads them; one by replacing it, one in place."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.count += 1
            self.mean = 0.5 * self.mean + x.detach().mean().to(self.mean.dtype)
        return x * (1 + 0.25 * torch.sin(self.count)).to(x.dtype) + 0.1 * self.mean.to(x.dtype)


class Score(nn.Module):
    """A branch that differentiates an energy by itself, with or without dropout in it."""

    def __init__(self, conv: nn.Module, p: float) -> None:
        super().__init__()
        self.conv = conv
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            inside = x if x.requires_grad else x.detach().requires_grad_()
            energy = F.dropout(torch.tanh(self.conv(inside)), self.p, self.training and self.p > 0).square().sum()
            score = torch.autograd.grad(energy, inside, create_graph=x.requires_grad)[0]
        return score if torch.is_grad_enabled() else score.detach()


class Checkpointed(nn.Module):
    """A part that is checkpointed by PyTorch."""

    def __init__(self, part: nn.Module, reentrant: bool = False) -> None:
        super().__init__()
        self.part = part
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.part, x, use_reentrant=self.reentrant)


class Square(torch.autograd.Function):
    """A Function of a user's own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * ctx.saved_tensors[0] * grad


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def random_branch(
    choose: Choose,
    shape: tuple[int, ...],
    outputs: int,
    context: str,
    inner_chain: Callable[[tuple[int, ...]], nn.Module] | None,
) -> nn.Module:
    """A branch for ``shape`` ``(B, C, *spatial)``."""
    batch, inputs, *size = shape
    dims = len(size)
    hidden = choose.integer(1, 4)
    kind = choose.name({"plain branch": 16, "time": 6 * (context == "time"), "any context": 2 * (context != "kspace")})
    inner = (batch, hidden, *size)
    layers: list[nn.Module] = [CONV[dims - 1](inputs, hidden, choose.of([1, 3]), padding="same")]
    for _ in range(choose.integer(0, 3)):
        layers.append(layers_of_branch(choose, inner, inner_chain))
    layers.append(CONV[dims - 1](hidden, outputs, 1))
    return {"plain branch": Plain, "time": Conditioned, "any context": ContextOnly}[kind](*layers)


def layers_of_branch(
    choose: Choose, shape: tuple[int, ...], inner_chain: Callable[[tuple[int, ...]], nn.Module] | None
) -> nn.Module:
    """One layer of a branch that keeps the shape."""
    batch, c, *size = shape
    dims = len(size)
    voxels = int(np.prod(size))
    many = batch * voxels > 1
    conv, norm, instance = CONV[dims - 1], BATCH[dims - 1], INSTANCE[dims - 1]
    kind = choose.name(
        {
            "tanh": 4, "sigmoid": 1, "softmax": 1, "leaky relu in place": 1, "silu in place": 1, "conv": 2,
            "group norm": 1, "batch norm": 4 * many, "batch norm without momentum": 2 * many,
            "instance norm": 2 * (voxels > 1), "tracking instance norm": 2 * (voxels > 1),
            "large batch norm": many * (voxels < 8), "large tracking instance norm": 1 < voxels < 8,
            "dropout": 4, "channel dropout": 1, "alpha dropout": 1, "feature alpha dropout": 1, "rrelu": 2,
            "functional dropout": 1, "torch random": 1, "random choice": 1, "own generator": 1, "python random": 1,
            "numpy random": 1, "spectral norm": 2, "spectral norm by hook": 1, "weight norm": 1, "counter": 2,
            "attributes": 2, "score": 1, "random score": 1, "checkpointed part": 1, "reentrant checkpoint": 1,
            "own function": 1, "chain in branch": 4 * (inner_chain is not None),
        }
    )  # fmt: skip
    large = 4100
    makers: dict[str, Callable[[], nn.Module]] = {
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "softmax": lambda: nn.Softmax(1),
        "leaky relu in place": lambda: nn.LeakyReLU(0.1, inplace=True),
        "silu in place": lambda: nn.SiLU(inplace=True),
        "conv": lambda: conv(c, c, 3, padding=1, bias=False),
        "group norm": lambda: nn.GroupNorm(1, c) if c * voxels > 1 else nn.Tanh(),
        "batch norm": lambda: norm(c),
        "batch norm without momentum": lambda: norm(c, affine=False, momentum=None),
        "instance norm": lambda: instance(c),
        "tracking instance norm": lambda: instance(c, affine=True, track_running_stats=True),
        "large batch norm": lambda: nn.Sequential(conv(c, large, 1), norm(large, momentum=0.3), conv(large, c, 1)),
        "large tracking instance norm": lambda: nn.Sequential(
            conv(c, large, 1), instance(large, track_running_stats=True), conv(large, c, 1)
        ),
        "dropout": lambda: nn.Dropout(0.3),
        "channel dropout": lambda: DROPOUT[dims - 1](0.3),
        "alpha dropout": lambda: nn.AlphaDropout(0.2),
        "feature alpha dropout": lambda: nn.FeatureAlphaDropout(0.2),
        "rrelu": nn.RReLU,
        "spectral norm": lambda: nn.utils.parametrizations.spectral_norm(conv(c, c, 1)),
        "spectral norm by hook": lambda: nn.utils.spectral_norm(conv(c, c, 1)),
        "weight norm": lambda: nn.utils.parametrizations.weight_norm(conv(c, c, 1)),
        "counter": Counted,
        "attributes": Attributes,
        "score": lambda: Score(conv(c, c, 1), 0.0),
        "random score": lambda: Score(conv(c, c, 1), 0.4),
        "checkpointed part": lambda: Checkpointed(nn.Sequential(conv(c, c, 1), nn.Dropout(0.3), nn.Tanh())),
        "reentrant checkpoint": lambda: Checkpointed(nn.Sequential(conv(c, c, 1), nn.Dropout(0.3), nn.Tanh()), True),
        "own function": lambda: Call(Square.apply),
        "chain in branch": lambda: Last(inner_chain(shape)),  # type: ignore[misc]
    }
    return makers[kind]() if kind in makers else Noise(kind)
