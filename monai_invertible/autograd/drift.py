"""Whether a chain finds its way back: the error of a recomputed input, measured in every training step.

Gradients of an inverted chain are taken at recomputed activations, so they are as wrong as these. A chain of layers
whose inverses amplify rounding loses its way with depth (Hascoet et al. 2019, arXiv 1910.11127, section 4), and nothing
else tells: the loss only stops falling. So each chain keeps a few numbers of its input and looks at them again when
backward has come back to them.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf, isfinite, nan
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

__all__ = ["DriftGuard", "StepDrift", "read_drift", "set_drift_guard", "trace_drift"]

POSITIONS = 4  # at most, along a dimension of a tensor
FLAT = 1e-10  # of the energy: a variance that is rounding
REMEDY = (
    'Use backprop="checkpoint" or fewer layers, put couplings around short chains (a hybrid), take slopes nearer to 1 '
    "or a larger invertible_eps, or compute in a higher precision."
)
places = random.Random(0)  # of its own: nobody else's random numbers change


class StepDrift(NamedTuple):
    """What one step of a chain was given, and how far from that its input was recomputed."""

    chain: str  # name in the network
    step: int  # from the chain's beginning
    layer: str
    signal: float  # mean square of the step's input
    noise: float  # mean square of the recomputed input's error


class DriftGuard:
    r"""Compares a small sample of a chain's input with what the walk back from its output makes of it.

    The sample is a grid of at most four positions along each dimension, at a random place. The measured error is the
    root mean square of :math:`x' - x` there, divided by the standard deviation of x about the means of its channels
    (which a normalisation would take away): 1e-6 to 1e-4 for a healthy chain in single precision, 1 for noise. It is
    not a number, and nothing is said, when the forward itself is not finite, or when the input does not vary, as that
    of an empty patch: there is nothing to lose then.

    Args:
        warn_above: a UserWarning, once, when the error exceeds it; None for never.
        raise_above: a RuntimeError in backward when the error exceeds it; None for never. With both None nothing is
            kept and nothing measured.
    """

    def __init__(self, warn_above: float | None = 1e-2, raise_above: float | None = 1e-1) -> None:
        self.warn_above = warn_above
        self.raise_above = raise_above
        self.name = ""
        self.measured: float | None = None  # by the last backward
        self.trace: list[StepDrift] | None = None
        self.warned = False

    @property
    def on(self) -> bool:
        """Whether there is anything to do."""
        return self.warn_above is not None or self.raise_above is not None or self.trace is not None

    def compare(
        self, before: Before, output: Sample, state: Sequence[Tensor], steps: Sequence[Any], position: int
    ) -> None:
        """Judge the recomputed input of a step by what was kept of it and of the chain's output."""
        if any(not has_values(t) for t in state):
            return
        numbers = before.signal, before.energy, before.noise(state), mean_square(output.values)
        signal, energy, noise, end = torch.stack([n.to(state[0].device) for n in numbers]).tolist()
        if self.trace is not None:
            self.trace.append(StepDrift(self.name, position, str(steps[position]), energy, noise))
            return
        if not isfinite(energy + end) or signal <= FLAT * energy:
            self.measured = nan
            return
        error = (noise / signal) ** 0.5
        self.measured = error if isfinite(error) else inf
        fatal = self.raise_above is not None and self.measured > self.raise_above
        limit = self.raise_above if fatal else self.warn_above
        if limit is None or self.measured <= limit or (self.warned and not fatal):
            return
        who = f"chain '{self.name}'" if self.name else "a chain"
        message = (
            f"InvertibleSequential: {who} of {len(steps)} steps ({steps[0]} to {steps[-1]}) recomputed its input with "
            f"a relative error of {self.measured:.1e}, above {limit:g}; its gradients are as wrong. {REMEDY} "
            "monai_invertible.numerics.reconstruction_snr shows which layer does it, set_drift_guard moves the limits."
        )
        if fatal:
            raise RuntimeError(message)
        self.warned = True
        warnings.warn(message, stacklevel=2)


class Sample:
    """Some of the numbers of a state (or all), and where they are."""

    def __init__(self, state: Sequence[Tensor], *, whole: bool = False) -> None:
        self.places = [() if whole else grid(t.shape) for t in state]
        with torch.no_grad():
            self.values = [t[place].clone() for t, place in zip(state, self.places, strict=True)]

    def noise(self, state: Sequence[Tensor]) -> Tensor:
        """Mean square of the difference from the same places of ``state``."""
        return mean_square([t[p] - v for t, p, v in zip(state, self.places, self.values, strict=True)])


class Before(Sample):
    """Of a state that will be recomputed: also its mean square and its variance about the means of its channels."""

    def __init__(self, state: Sequence[Tensor], *, whole: bool = False) -> None:
        super().__init__(state, whole=whole)
        with torch.no_grad():
            # In all channels of the sampled positions: a state may have few that are not zero.
            channels = (slice(None), slice(None))
            wide = self.values if whole else [t[channels[: t.ndim] + grid(t.shape[2:])] for t in state]
            self.energy = mean_square(wide)
            self.signal = mean_square([t - t.mean([0, *range(2, t.ndim)], keepdim=True) for t in wide if t.ndim > 1])


def has_values(tensor: Tensor) -> bool:
    """Whether it is not one that only describes a tensor."""
    return not tensor.is_meta and not isinstance(tensor, FakeTensor)


def mean_square(tensors: Sequence[Tensor]) -> Tensor:
    """Over all tensors, in single precision at least, without a copy of any; zero of none."""
    if not tensors:
        return torch.zeros(())
    squares = []
    for t in tensors:
        dtype = torch.promote_types(t.dtype, torch.float32)
        squares.append(torch.linalg.vector_norm(t, dtype=dtype).square().to(tensors[0].device))
    return torch.stack(squares).sum() / max(sum(t.numel() for t in tensors), 1)


def grid(shape: Sequence[int]) -> tuple[slice, ...]:
    """At most four positions along each dimension, at a random place."""
    steps = [max(-(-n // POSITIONS), 1) for n in shape]
    return tuple(slice(places.randrange(step), None, step) for step in steps)


def set_drift_guard(network: nn.Module, warn_above: float | None = 1e-2, raise_above: float | None = 1e-1) -> nn.Module:
    """Set the limits of all chains of a network, in place, and return it; messages name the chains from then on.

    Args:
        network: it, or a module in it, is an :class:`~monai_invertible.autograd.InvertibleSequential`.
        warn_above, raise_above: relative errors of a recomputed input, see :class:`DriftGuard`; None for never, both
            None to switch it off.

    Raises:
        ValueError: a limit that is not positive, or a network without a chain.
    """
    for name, limit in (("warn_above", warn_above), ("raise_above", raise_above)):
        if limit is not None and not limit > 0:
            raise ValueError(f"set_drift_guard: {name} must be positive, got {limit}. Use None for never.")
    for guard in guards(network, needed_by="set_drift_guard").values():
        guard.warn_above, guard.raise_above, guard.warned = warn_above, raise_above, False
    return network


def read_drift(network: nn.Module) -> dict[str, float]:
    """Name of each chain to the relative error of its input as recomputed by its last backward.

    Chains that have not walked back are left out: stored, checkpointed or compiled ones, or before any backward.
    """
    return {name: guard.measured for name, guard in guards(network).items() if guard.measured is not None}


@contextmanager
def trace_drift(network: nn.Module) -> Iterator[list[StepDrift]]:
    """Within it, forward and backward compare the whole input of every step, and no limit holds.

    Gives the list that backward fills. Takes the memory of stored activations.

    Raises:
        ValueError: a network without a chain.
    """
    found = guards(network, needed_by="trace_drift").values()
    trace: list[StepDrift] = []
    for guard in found:
        guard.trace = trace
    try:
        yield trace
    finally:
        for guard in found:
            guard.trace = None


def guards(network: nn.Module, needed_by: str = "") -> dict[str, DriftGuard]:
    """The guards of the network's chains, which learn their names."""
    found = {name: m.guard for name, m in network.named_modules() if isinstance(getattr(m, "guard", None), DriftGuard)}
    if needed_by and not found:
        raise ValueError(
            f"{needed_by}: {type(network).__name__} has no invertible chain. Build it from InvertibleSequential."
        )
    for name, guard in found.items():
        guard.name = name
    return found
