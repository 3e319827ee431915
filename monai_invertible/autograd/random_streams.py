"""The global streams of random numbers: of each device, and of Python and NumPy where a module may draw from them."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from types import BuiltinFunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["RandomStreams", "Stream", "draws_outside_torch", "is_foreign", "streams_of"]


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
        self.drawn: list[tuple[Stream, Any]] = []  # streams that may have been drawn from, and where they began
        self.changed: list[tuple[Stream, Any]] = []  # those that were elsewhere afterwards

    def begin(self) -> None:
        """The evaluation begins."""
        self.drawn = [(stream, stream.state()) for stream in self.streams]

    def end(self, all_of_them: bool) -> None:
        """The evaluation is over; ``all_of_them`` if it may have drawn, and put a stream back by itself."""
        self.changed = [(stream, state) for stream, state in self.drawn if not stream.same(state, stream.state())]
        if not all_of_them:
            self.drawn = self.changed

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


def is_foreign(module: nn.Module) -> bool:
    """Whether the code of a module's class is neither torch's, nor MONAI's, nor ours."""
    kind: Any = type(module)
    return bool(foreign_files(kind))


def draws_outside_torch(module: nn.Module) -> bool:
    """Whether the code of a module's class may draw from Python's or NumPy's global stream."""
    kind: Any = type(module)
    return _draws_outside_torch(kind)


@cache
def foreign_files(kind: type) -> tuple[str, ...]:
    """The files, of others, in which a class and those that it inherits from are written."""
    known = ("torch.", "monai.", "monai_invertible.", "builtins")
    return tuple(base.__module__ for base in kind.mro() if not base.__module__.startswith(known))


@cache
def _draws_outside_torch(kind: Any) -> bool:
    """Whether one of them imports ``random`` or NumPy."""
    files = [sys.modules.get(name) for name in foreign_files(kind)]
    return any(draws(value) for file in files if file is not None for value in list(vars(file).values()))


def draws(value: Any) -> bool:
    """Whether the value is ``random``, ``numpy``, ``numpy.random``, or a function that draws by one of them."""
    if isinstance(value, ModuleType):
        return value.__name__ in ("random", "numpy", "numpy.random")
    if not isinstance(value, (BuiltinFunctionType, MethodType)):
        return False
    return type(value.__self__).__module__ in ("random", "numpy.random.mtrand")
