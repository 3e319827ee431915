"""Random numbers of a layer's modules, call by call: for an inverse that calls them in another order.

A user's layer ``y1 = x1 + F(x2), y2 = x2 + G(y1)`` draws for F before it draws for G; its inverse has to undo G first.
So it is remembered where the random streams were when each module inside the layer was called, and the inverse finds
them there again.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from monai_invertible.autograd.random_streams import RandomStreams, Stream

__all__ = ["CallStreams"]


class CallStreams:
    """As a context: where the streams are at each call of the modules inside ``layer``, during one evaluation of it.

    Args:
        layer: whose modules.
        random: what the evaluation draws from, and whether it has drawn anything.
    """

    def __init__(self, layer: nn.Module, random: RandomStreams) -> None:
        self.inside = [m for m in layer.modules() if m is not layer] if random.streams else []
        self.random = random
        self.states: dict[nn.Module, list[list[tuple[Stream, Any]]]] = defaultdict(list)
        self.handles: list[Any] = []

    def __enter__(self) -> None:
        def remember(module: nn.Module) -> None:
            self.states[module].append([(stream, stream.state()) for stream in self.random.streams])

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
        left = {module: iter(calls) for module, calls in self.states.items()}
        drawn = {stream for stream, _ in self.random.drawn}  # the others stay where they are now

        def go_back(module: nn.Module) -> None:
            for stream, state in next(left.get(module, iter(())), ()):
                if stream in drawn:
                    stream.go_to(state)

        handles = self._before_each_call(go_back)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before_each_call(self, function: Callable[[nn.Module], None]) -> list[Any]:
        thread = threading.get_ident()

        def hook(module: nn.Module, inputs: Any) -> None:
            if threading.get_ident() == thread:  # others may use the module meanwhile
                function(module)

        return [m.register_forward_pre_hook(hook, prepend=True) for m in self.inside]
