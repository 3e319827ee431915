"""Estimate the memory of a training step before there is a machine that could run it.

The step is carried out on fake tensors, which have a shape, a type and a storage size but no numbers: every operation
of forward and backward takes place, with all its allocations, and none is computed. ``LiveBytes`` counts. So a 3D
network at its paper's size is estimated in seconds on a laptop, whatever engine it uses, without a formula.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
)
from torch.utils._pytree import tree_leaves

from monai_invertible.memory.live_bytes import LiveBytes
from monai_invertible.memory.report import MemoryReport

__all__ = ["estimate_training_step"]

_NEEDS_NUMBERS = (DataDependentOutputException, DynamicOutputShapeException, UnsupportedFakeTensorException)
_OPTIMIZER_TENSORS = {None: 0, "sgd": 0, "sgd_momentum": 1, "rmsprop": 1, "adam": 2, "adamw": 2}  # per parameter


def estimate_training_step(
    network: nn.Module | Callable[[], nn.Module],
    inputs: torch.Tensor | Sequence[Any] | Mapping[str, Any],
    *,
    loss: Callable[[Any], torch.Tensor] | None = None,
    autocast: torch.dtype | None = None,
    optimizer: str | None = "adam",
    simulate: bool = True,
) -> MemoryReport:
    """Bytes that one training step (forward, loss, backward) of a network needs, by purpose, and its peak.

    The step is the first after ``optimizer.zero_grad()``: gradients do not exist before backward, the optimizer's state
    does. The network's output is kept to the end of the step, as a MONAI trainer keeps it. The network given is not
    touched: the step runs on a copy.

    Args:
        network: the network; or a function without arguments that builds it, which is then called under fake tensors,
            so that parameters cost nothing either.
        inputs: what the network is called with: one shape such as ``(1, 4, 128, 128, 128)`` (float32), one example
            tensor, a list of those (and of other values, passed as they are), or a dictionary of keyword arguments.
        loss: from the network's output to a scalar. Default: the sum of the mean squares of all output tensors.
        autocast: run forward and loss under ``torch.autocast`` with this type, such as ``torch.bfloat16``.
        optimizer: whose state to add: ``"adam"``, ``"adamw"``, ``"rmsprop"``, ``"sgd"``, ``"sgd_momentum"``, or None.
        simulate: run on fake tensors. False runs a real step on a real copy, for networks that look at their numbers.

    Raises:
        ValueError: an unknown optimizer.
        RuntimeError: when the network needs numbers that fake tensors have not (``.item()`` and the like).

    Example::

        print(estimate_training_step(lambda: SegResNet(3, init_filters=32), (1, 1, 128, 128, 128)))
    """
    if optimizer not in _OPTIMIZER_TENSORS:
        known = ", ".join(str(name) for name in _OPTIMIZER_TENSORS)
        raise ValueError(f"estimate_training_step: optimizer must be one of {known}, got {optimizer!r}. Choose one.")
    fake = FakeTensorMode(allow_non_fake_inputs=True) if simulate else None
    net = _copy(network, fake) if isinstance(network, nn.Module) else None
    try:
        with fake or nullcontext():
            net = net or network()
        args, kwargs = _arguments(inputs, next((p.device for p in net.parameters()), torch.device("cpu")), fake)
        with fake or nullcontext():
            return _step(net.train(), args, kwargs, loss or _mean_squares, autocast, optimizer, simulate)
    except _NEEDS_NUMBERS as error:
        who = f"{type(net).__name__} cannot run" if net else "the network cannot be built"
        remedy = "simulate=False to count a real step of a small input" if net else "a network built already"
        raise RuntimeError(
            f"estimate_training_step: {who} on fake tensors, because it asks for the numbers in a tensor, "
            f"{type(error).__name__}({error}). Pass {remedy}."
        ) from error


def _step(
    network: nn.Module,
    args: list[Any],
    kwargs: dict[str, Any],
    loss: Callable[[Any], torch.Tensor],
    autocast: torch.dtype | None,
    optimizer: str | None,
    simulate: bool,
) -> MemoryReport:
    parameters, buffers, inputs = list(network.parameters()), list(network.buffers()), tree_leaves((args, kwargs))
    state = _OPTIMIZER_TENSORS[optimizer] * _bytes(p for p in parameters if p.requires_grad)
    with LiveBytes(include=[*parameters, *buffers, *(t for t in inputs if isinstance(t, torch.Tensor))]) as live:
        before = live.current
        device = parameters[0].device.type if parameters else "cpu"
        with torch.autocast(device, autocast) if autocast else nullcontext():
            output = network(*args, **kwargs)
            value = loss(output)
        activations = live.current - before
        value.backward()
        del output, value
    return MemoryReport(
        network=type(network).__name__,
        simulated=simulate,
        parameters=_bytes(parameters),
        buffers=_bytes(buffers),
        inputs=_bytes(inputs),
        gradients=_bytes(p.grad for p in parameters),
        optimizer=state,
        activations=activations,
        peak=live.peak + state,
    )


def _copy(network: nn.Module, fake: FakeTensorMode | None) -> nn.Module:
    """A copy, whose parameters and buffers are fake from the start: their memory is not doubled."""
    memo: dict[int, Any] = {}
    for tensor in [*network.parameters(), *network.buffers()] if fake else []:
        memo[id(tensor)] = fake.from_tensor(tensor)  # type: ignore[union-attr]
    return copy.deepcopy(network, memo)


def _arguments(inputs: Any, device: torch.device, fake: FakeTensorMode | None) -> tuple[list[Any], dict[str, Any]]:
    def make(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            plain = value.detach().as_subclass(torch.Tensor)  # a MetaTensor cannot be faked
            return (fake.from_tensor(plain) if fake else plain.clone()).requires_grad_(value.requires_grad)
        with fake or nullcontext():
            return torch.rand(value, device=device) if _is_shape(value) else value

    if isinstance(inputs, Mapping):
        return [], {name: make(value) for name, value in inputs.items()}
    single = isinstance(inputs, torch.Tensor) or _is_shape(inputs)
    return [make(value) for value in ([inputs] if single else inputs)], {}


def _is_shape(value: Any) -> bool:
    return isinstance(value, (tuple, list, torch.Size)) and len(value) > 0 and all(type(n) is int for n in value)


def _mean_squares(output: Any) -> torch.Tensor:
    tensors = [t for t in tree_leaves(output) if isinstance(t, torch.Tensor) and t.requires_grad]
    return torch.stack([t.abs().square().mean() if t.is_complex() else t.square().mean() for t in tensors]).sum()


def _bytes(tensors: Iterable[Any]) -> int:
    """Bytes of the storages behind the tensors, shared ones once."""
    storages = [t.untyped_storage() for t in tensors if isinstance(t, torch.Tensor)]
    return sum({s._cdata: s.nbytes() for s in storages}.values())
