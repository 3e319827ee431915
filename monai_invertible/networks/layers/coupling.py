r"""The additive coupling: two channel groups take turns in moving each other.

Dinh et al., NICE, 2014, arXiv 1410.8516. Whatever the branches :math:`F` and :math:`G` compute, each half-step
:math:`(x_1, x_2) \mapsto (x_1 + F(x_2), x_2)` is undone by one subtraction, and finding its input and repeating its
forward need the same single evaluation of the branch.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from monai_invertible.autograd.memory import unshared
from monai_invertible.autograd.module import Composition, Step
from monai_invertible.autograd.torch_internals import version
from monai_invertible.networks.layers.splitting import ChannelSplit

__all__ = ["AdditiveCoupling", "ShiftStep"]


class AdditiveCoupling(Composition):
    r"""Each half of the channels is moved by a function of the other.

    ``forward``: :math:`y_1 = x_1 + F(x_2),\; y_2 = x_2 + G(y_1)`.
    ``inverse``: :math:`x_2 = y_2 - G(y_1),\; x_1 = y_1 - F(x_2)`.

    Gomez et al. 2017, eq. 6-7; RevGAN eq. 8-9 (which prints the inverse's lines in the wrong order); InvRes eq. 1.
    In a chain: saves nothing, recomputes each branch once. Error: one rounding of the sum per half-step.

    Args:
        f: branch from :math:`x_2` to the shape of :math:`x_1`; any module. It receives the part of the context that
            its ``forward`` names.
        g: branch from :math:`y_1` to the shape of :math:`x_2`. One of the two may be None: a one-sided coupling.
        split: channels of :math:`x_1` and :math:`x_2`; None for two halves.

    Shapes: one tensor ``(B, C, *spatial)``; with ``split=False`` a state whose last two tensors are :math:`x_1` and
    :math:`x_2`.

    Raises:
        ValueError: channels that do not split, or a branch whose output has another shape than what it moves.
        RuntimeError: a branch that changes its input in place.
    """

    def __init__(
        self, f: nn.Module | None, g: nn.Module | None = None, *, split: Sequence[int] | Literal[False] | None = None
    ) -> None:
        super().__init__()
        if f is None and g is None:
            raise ValueError(
                f"{type(self).__name__}: at least one branch is needed, got f=None and g=None. Give f, g or both."
            )
        self.f = f
        self.g = g
        self.split = None if split is False else ChannelSplit(split, who=type(self).__name__)

    def steps(self, inverse: bool = False) -> Iterable[Step]:
        branches = [(self.f, -2), (self.g, -1)]
        who = type(self).__name__
        shifts = [ShiftStep(branch, target, inverse, who=who) for branch, target in branches if branch is not None]
        if inverse:
            shifts.reverse()
        if self.split is None:
            return shifts
        return (*self.split.steps(), *shifts, *self.split.steps(inverse=True))


class ShiftStep(Step):
    """Move one of the last two tensors of the state by a function of the other.

    ``forward``: ``(a, b) -> (a + F(b), b)`` for ``target=-2``, ``(a, b + F(a))`` for -1. ``invert`` subtracts.

    Args:
        branch: F.
        target: the tensor that is moved, -2 or -1.
        inverse: subtract instead of add.
        source: the tensor that is read; None for the other one of the two.
        who: the class named in errors.
    """

    def __init__(
        self,
        branch: nn.Module,
        target: int,
        inverse: bool = False,
        source: int | None = None,
        *,
        who: str = "AdditiveCoupling",
    ) -> None:
        super().__init__(branch, inverse)
        self.target = target
        self.source = -3 - target if source is None else source
        self.who = who

    def forward(self, *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        return self._moved(state, self.shift(*state, **context), self.inverse)

    def invert(self, *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        return self._moved(state, self.shift(*state, **context), not self.inverse)

    def recompute(
        self, evaluate: Callable[..., Any], capture: Callable[..., Any], *state: Tensor, **context: Any
    ) -> tuple[Tensor, ...]:
        known: list[Tensor | None] = list(state)
        known[self.target] = None
        shift = capture(self.shift, *known, **context)
        return self._moved(state, shift, not self.inverse, own=True)

    def shift(self, *state: Tensor, **context: Any) -> Tensor:
        """What the target is moved by."""
        source = state[self.source]
        before = version(source)
        shift = self.module(source, **named_context(self.module, context))
        if version(source) != before:
            raise RuntimeError(
                f"{self.who}: branch {type(self.module).__name__} changed its input in place, but the coupling "
                "needs it unchanged. Use inplace=False in the first operation of the branch."
            )
        return shift

    def _moved(self, state: tuple[Tensor, ...], shift: Tensor, back: bool, own: bool = False) -> tuple[Tensor, ...]:
        target = state[self.target]
        if shift.shape != target.shape:
            raise ValueError(
                f"{self.who}: branch {type(self.module).__name__} returned shape {tuple(shift.shape)} for a "
                f"state of shape {tuple(target.shape)}. Its output must have the shape of the tensor it is added to; "
                "check its channels and padding."
            )
        moved = list(state)
        out = None
        if own:  # nobody else needs the one or the other: saves a tensor at the peak of the step
            reusable = (t for t in (target, shift) if t.dtype == target.dtype and unshared(t))
            out = next(reusable, None)
        total = (torch.sub if back else torch.add)(target, shift, out=out)
        moved[self.target] = total if total.dtype == target.dtype else total.to(target.dtype)
        return tuple(moved)


def named_context(branch: nn.Module, context: dict[str, Any]) -> dict[str, Any]:
    """The part of the context that the branch's ``forward`` names as arguments."""
    if not context:
        return context
    find = _argument_names.__wrapped__ if torch.compiler.is_compiling() else _argument_names  # no cache to trace
    names = find(type(branch).forward)
    return context if names is None else {k: v for k, v in context.items() if k in names}


@cache
def _argument_names(function: Callable[..., Any]) -> frozenset[str] | None:
    """Names that ``function`` accepts after ``self`` and its first argument; None for any name."""
    parameters = list(inspect.signature(function).parameters.values())[2:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters)
