"""Random numbers of a layer's modules, call by call: for an inverse that calls them in another order.

A user's layer ``y1 = x1 + F(x2), y2 = x2 + G(y1)`` draws for F before it draws for G; its inverse has to undo G first.
So it is remembered where the random streams were when each module inside the layer was called, and the inverse finds
them there again. A dropout's mask also follows the layout of its input in memory, so that is remembered, too.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_invertible.autograd.memory import with_strides
from monai_invertible.autograd.random_streams import RandomStreams, Stream

__all__ = ["CallStreams"]


class Call(NamedTuple):
    """What a call of a module found."""

    streams: list[tuple[Stream, Any]]
    strides: list[tuple[int, ...]]  # of the tensors that it was given


def is_strided(value: Any) -> bool:
    """Whether it is a tensor that has strides."""
    return isinstance(value, Tensor) and value.layout is torch.strided


class CallStreams:
    """As a context: where the streams are at each call of the modules inside ``layer``, during one evaluation of it.

    Args:
        layer: whose modules.
        random: what the evaluation draws from, and whether it has drawn anything.
    """

    def __init__(self, layer: nn.Module, random: RandomStreams) -> None:
        self.inside = [m for m in layer.modules() if m is not layer] if random.streams else []
        self.random = random
        self.calls: dict[nn.Module, list[Call]] = defaultdict(list)
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        def remember(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            streams = [(stream, stream.state()) for stream in self.random.streams]
            self.calls[module].append(Call(streams, [x.stride() for x in inputs if is_strided(x)]))

        self.handles = self._before_each_call(remember)

    def __exit__(self, *error: Any) -> None:
        for handle in self.handles:
            handle.remove()

    @contextmanager
    def again(self) -> Iterator[None]:
        """While it lasts, each call of a module draws what the same call of it drew."""
        if not self.random.drawn:
            yield
            return
        left = {module: iter(calls) for module, calls in self.calls.items()}
        drawn = {stream for stream, _ in self.random.drawn}  # the others stay where they are now

        def go_back(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            call = next(left.get(module, iter(())), None)
            if call is None or len(call.strides) != sum(map(is_strided, inputs)):
                return None
            for stream, state in call.streams:
                if stream in drawn:
                    stream.go_to(state)
            strides = iter(call.strides)
            return tuple(with_strides(x, next(strides)) if is_strided(x) else x for x in inputs)

        handles = self._before_each_call(go_back)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before_each_call(self, function: Callable[[nn.Module, tuple[Any, ...]], Any]) -> list[Any]:
        thread = threading.get_ident()

        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
            # Others may use the module meanwhile.
            return function(module, inputs) if threading.get_ident() == thread else None

        return [m.register_forward_pre_hook(hook, prepend=True) for m in self.inside]
