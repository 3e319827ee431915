"""Whether a chain finds its way back: the error of a recomputed input, measured again and again in training.

Gradients of an inverted chain are taken at recomputed activations, so they are as wrong as these. A chain of layers
whose inverses amplify rounding loses its way with depth (Hascoet et al. 2019, arXiv 1910.11127, section 4), and nothing
else tells: the loss only stops falling. So each chain keeps a few numbers of its input (a
:class:`~monai_invertible.autograd.drift_watch.Watch`) and looks at them again when backward has come back to them.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_invertible.autograd.drift_watch import Watch, measurable

__all__ = ["DriftGuard", "StepDrift", "read_drift", "set_drift_guard", "trace_drift"]

# An error is there from the first step (layers that cannot be inverted) or grows with the weights, over many steps.
FIRST = 4  # forwards that are measured,
EVERY = 8  # and of how many after them one: a measured step costs about as much as a few operations on the state
REMEDY = (
    'Use backprop="checkpoint" or fewer layers, put couplings around short chains (a hybrid), take slopes nearer to 1 '
    "or a larger invertible_eps, or compute in a higher precision."
)
one_at_a_time = threading.RLock()  # two threads may walk back through one chain


class StepDrift(NamedTuple):
    """What one step of a chain was given, and how far from that its input was recomputed."""

    chain: str  # name in the network
    step: int  # from the chain's beginning
    layer: str
    signal: float  # mean square of the step's input
    noise: float  # mean square of the recomputed input's error


class DriftGuard:
    r"""Compares a chain's input with what the walk back from its output makes of it.

    The measured error is that of the worst channel: the root mean square of :math:`x' - x` over the whole of it,
    divided by the standard deviation of x (:class:`~monai_invertible.autograd.drift_watch.Watch` has the details): 1e-6
    to 1e-4 for a healthy chain in single precision, 1 for noise. It is not a number, and nothing is said, when the
    forward itself is not finite, or when the input does not vary, as that of an empty patch. Each of the first four
    forwards is measured, then one of eight. On a GPU nobody waits for the result: it is looked at in the chain's next
    forward or backward.

    Args:
        warn_above: a UserWarning, once, when the error exceeds it; None for never.
        raise_above: a RuntimeError when the error exceeds it, in backward, on a GPU in one of the next forwards or
            backwards; None for never. With both None nothing is kept and nothing measured.
    """

    def __init__(self, warn_above: float | None = 1e-2, raise_above: float | None = 1e-1) -> None:
        self.warn_above = warn_above
        self.raise_above = raise_above
        self.name = ""
        self.measured: float | None = None  # by the last backward that was measured and is known
        self.trace: list[StepDrift] | None = None
        self.warned = False
        self.forwards = 0  # since the limits are set
        self.readings: list[Reading] = []  # on their way here
        self.alarm = ""  # to be raised

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"readings": [], "trace": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]  # what an older version did not have
        self.__dict__.update(state)

    def begin(self, state: Sequence[Tensor]) -> Watch | None:
        """Remember the input of a step that will be recomputed; None if this is not to be measured.

        Called once in a forward, but for every step while there is a trace.
        """
        self.settle()
        self.speak()
        if self.trace is None:
            if self.warn_above is None and self.raise_above is None:
                return None
            self.forwards += 1
            if self.forwards > FIRST and self.forwards % EVERY:
                return None
        state = measurable(state)
        return Watch(state, whole=self.trace is not None) if state else None

    def judge(
        self,
        watch: Watch,
        state: Sequence[Tensor],
        steps: Sequence[Any],
        position: int,
        who: str = "InvertibleSequential",
    ) -> None:
        """Compare the recomputed input of step number ``position`` with what was remembered of it."""
        state = measurable(state)
        if not state:
            return
        if self.trace is not None:
            self.trace.append(StepDrift(self.name, position, str(steps[position]), *watch.totals(state)))
            return
        chain = f"of {len(steps)} steps ({steps[0]} to {steps[-1]})"
        with one_at_a_time:
            self.readings.append(Reading(watch.error(state), who, chain))
        self.settle()
        self.speak()

    def settle(self, wait: bool = False) -> None:
        """Take in what has arrived."""
        with one_at_a_time:
            while self.readings and (wait or self.readings[0].arrived()):
                reading = self.readings.pop(0)
                self.measured = reading.value()
                self._judge(self.measured, reading)

    def _judge(self, error: float, reading: Reading) -> None:
        fatal = self.raise_above is not None and error > self.raise_above
        limit = self.raise_above if fatal else self.warn_above
        if limit is None or not error > limit or (self.warned and not fatal):
            return
        name = f"chain '{self.name}'" if self.name else "a chain"
        message = (
            f"{reading.who}: {name} {reading.chain} recomputed its input with a relative error of {error:.1e}, above "
            f"{limit:g}; its gradients are as wrong. {REMEDY} "
            "monai_invertible.numerics.reconstruction_snr shows which layer does it, set_drift_guard moves the limits."
        )
        if fatal:
            self.alarm = message
            return
        self.warned = True
        warnings.warn(message, stacklevel=4)

    def speak(self) -> None:
        """Stop the training, if there is reason to."""
        with one_at_a_time:
            message, self.alarm = self.alarm, ""
        if message:
            raise RuntimeError(message)


class Reading:
    """A measured error on its way from the device, and which chain it is about."""

    def __init__(self, error: Tensor, who: str, chain: str) -> None:
        self.who = who
        self.chain = chain
        self.error = error
        self.event: Any = None
        if error.is_cuda:
            self.error = torch.empty((), dtype=error.dtype, pin_memory=True).copy_(error, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record(torch.cuda.current_stream(error.device))

    def arrived(self) -> bool:
        """Without waiting."""
        return self.event is None or self.event.query()

    def value(self) -> float:
        """Waits until it is here."""
        if self.event is not None:
            self.event.synchronize()
        return float(self.error)


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
        guard.settle(wait=True)  # by the limits that held
        guard.warn_above, guard.raise_above, guard.warned = warn_above, raise_above, False
        guard.forwards, guard.alarm = 0, ""
    return network


def read_drift(network: nn.Module, *, wait: bool = True) -> dict[str, float]:
    """Name of each chain to the relative error of its input as recomputed by the last backward that was measured.

    Chains that have not walked back are left out: stored, checkpointed or compiled ones, or before any backward.

    Args:
        network: with chains, or without.
        wait: for what a GPU has not finished; otherwise the last error that is known.
    """
    found = guards(network)
    for guard in found.values():
        guard.settle(wait)
    return {name: guard.measured for name, guard in found.items() if guard.measured is not None}


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
