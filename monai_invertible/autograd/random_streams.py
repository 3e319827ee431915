"""The global streams of random numbers: of each device, and of Python and NumPy where a module may draw from them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["RandomStreams", "Stream", "draws_outside_torch", "streams_of"]


class Stream:
    """One global stream of random numbers."""

    def state(self) -> Any:
        """Where the stream is."""
        raise NotImplementedError

    def go_to(self, state: Any) -> None:
        """Continue from there."""
        raise NotImplementedError

    def same(self, a: Any, b: Any) -> bool:
        """Whether two states are one."""
        return a == b


class DeviceStream(Stream):
    """That of torch on a device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def state(self) -> Tensor:
        if self.device.type == "cpu":
            return torch.get_rng_state()
        return torch.get_device_module(self.device).get_rng_state(self.device)

    def go_to(self, state: Tensor) -> None:
        if self.device.type == "cpu":
            torch.set_rng_state(state)
        else:
            torch.get_device_module(self.device).set_rng_state(state, self.device)

    def same(self, a: Tensor, b: Tensor) -> bool:
        return a.numpy().tobytes() == b.numpy().tobytes()  # states lie on the CPU; half the time of torch.equal


class PythonStream(Stream):
    """That of the module ``random``."""

    def state(self) -> Any:
        return random.getstate()

    def go_to(self, state: Any) -> None:
        random.setstate(state)


class NumpyStream(Stream):
    """That of ``numpy.random``."""

    def state(self) -> Any:
        return sys.modules["numpy.random"].get_state()

    def go_to(self, state: Any) -> None:
        sys.modules["numpy.random"].set_state(state)

    def same(self, a: Any, b: Any) -> bool:
        return all(bool((x == y).all()) if hasattr(x, "all") else x == y for x, y in zip(a, b, strict=True))


class RandomStreams:
    """What one evaluation draws from some streams, and how to draw it again.

    Args:
        streams: those that it may draw from.
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = streams
        self.drawn: list[tuple[Stream, Any]] = []  # streams that were drawn from, and where they began

    def begin(self, known: dict[Stream, Any]) -> None:
        """The evaluation begins; ``known`` are the present states, where an evaluation before has looked them up."""
        for stream in self.streams:
            if stream not in known:
                known[stream] = stream.state()
        self.drawn = [(stream, known[stream]) for stream in self.streams]

    def end(self, known: dict[Stream, Any]) -> None:
        """The evaluation is over; ``known`` learns where the streams are now."""
        began, self.drawn = self.drawn, []
        for stream, state in began:
            known[stream] = stream.state()
            if not stream.same(state, known[stream]):
                self.drawn.append((stream, state))

    def rewind(self) -> Callable[[], None]:
        """Go back to where the evaluation began, and return what goes on from here again."""
        if not self.drawn:
            return nothing
        now = [(stream, stream.state()) for stream, _ in self.drawn]
        for stream, state in self.drawn:
            stream.go_to(state)

        def go_on() -> None:
            for stream, state in now:
                stream.go_to(state)

        return go_on


def nothing() -> None:
    """There is nothing to undo."""


def streams_of(devices: Iterable[torch.device], outside_torch: bool) -> list[Stream]:
    """The streams that code may draw from which works on these devices."""
    drawn_from = {CPU} | {device for device in devices if device.type != "meta"}
    return [device_stream(device) for device in drawn_from] + (OUTSIDE if outside_torch else [])


CPU = torch.device("cpu")
OUTSIDE: list[Stream] = [PythonStream(), NumpyStream()]
device_stream = cache(DeviceStream)


def draws_outside_torch(module: nn.Module) -> bool:
    """Whether the code of a module's class may draw from Python's or NumPy's global stream."""
    kind: Any = type(module)
    return _draws_outside_torch(kind)


@cache
def _draws_outside_torch(kind: type) -> bool:
    """Whether a file in which the class, or a class that it inherits from, is written imports one of them."""
    for base in kind.mro():
        file = sys.modules.get(base.__module__)
        if file is None or base.__module__.startswith(("torch.", "monai.", "monai_invertible.", "builtins")):
            continue
        if any(draws(value) for value in list(vars(file).values())):
            return True
    return False


def draws(value: Any) -> bool:
    """Whether the value is ``random``, ``numpy``, ``numpy.random``, or a function that draws by one of them."""
    if isinstance(value, ModuleType):
        return value.__name__ in ("random", "numpy", "numpy.random")
    return type(getattr(value, "__self__", None)).__module__ in ("random", "numpy.random.mtrand")
