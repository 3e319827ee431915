"""The contract of an invertible layer, written once.

An author writes two directions of ordinary differentiable mathematics, ``forward`` and ``inverse``; nobody writes a
backward pass. A chain (:class:`~monai_invertible.autograd.InvertibleSequential`) sees every layer as a few
:class:`Step` objects, the units in which it runs forward and walks back. Most layers are one step and inherit it; a
layer that can find its inputs and repeat its forward in a single evaluation of its branch offers its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Composition", "Inverse", "InvertibleModule", "State", "Step", "as_state", "as_tuple"]

State = Tensor | tuple[Tensor, ...]


def as_tuple(state: State) -> tuple[Tensor, ...]:
    """The state as a tuple of tensors."""
    return (state,) if isinstance(state, Tensor) else tuple(state)


def as_state(tensors: tuple[Tensor, ...]) -> State:
    """The state as a caller sees it: a single tensor stands alone."""
    return tensors[0] if len(tensors) == 1 else tensors


class InvertibleModule(nn.Module):
    """A map of a *state* that can be computed in both directions.

    ``state`` is a tensor or several tensors; it is what gets inverted. ``context`` (time embedding, k-space, mask, ...)
    is what a layer may read and nobody inverts; gradients flow into it. A subclass MUST

    - give ``inverse(*forward(*state, **context), **context) == state``, both ways round, for the same context;
    - accept context that it does not use (``**context``);
    - leave the tensors that it is given unchanged (no in-place operation on them).
    """

    def forward(self, *state: Any, **context: Any) -> State:
        """Map the state to the output state."""
        raise NotImplementedError(
            f"{type(self).__name__}: an invertible module must define forward(*state, **context)."
        )

    def inverse(self, *state: Any, **context: Any) -> State:
        """Map an output state back to the state it came from."""
        raise NotImplementedError(
            f"{type(self).__name__}: an invertible module must define inverse(*state, **context)."
        )

    def steps(self, inverse: bool = False) -> Iterable[Step]:
        """What a chain executes for this module, in order, in the direction asked for; by default the whole of it."""
        return (Step(self, inverse),)


class Step:
    """One direction of one map: the unit in which a chain runs forward and walks back.

    Args:
        module: what is evaluated; its parameters, buffers, flags and hooks are the step's.
        inverse: run the module's inverse as this step's forward.
    """

    def __init__(self, module: nn.Module, inverse: bool = False) -> None:
        self.module = module
        self.inverse = inverse

    def __repr__(self) -> str:
        return f"Inverse({type(self.module).__name__})" if self.inverse else type(self.module).__name__

    def forward(self, *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        """The step's output state."""
        return as_tuple(self.module.inverse(*state, **context) if self.inverse else self.module(*state, **context))  # type: ignore[operator]

    def invert(self, *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        """The input state that gave this output state."""
        return as_tuple(self.module(*state, **context) if self.inverse else self.module.inverse(*state, **context))  # type: ignore[operator]

    def recompute(self, capture: Callable[..., Any], *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        """Find the input state of the output ``state`` and, on the way, repeat the forward once through ``capture``.

        ``capture(function, *inputs, **context)`` evaluates ``function`` while the tensors that autograd saves are
        collected, and returns its detached result. ``inputs`` are this step's input state in order; ``None`` stands for
        a tensor that ``function`` does not read. ``function`` must save the same tensors in the same order as
        :meth:`forward`. The default inverts first and repeats afterwards; a step that needs its expensive part once for
        both overrides it.
        """
        inputs = self.invert(*state, **context)
        capture(self.forward, *inputs, **context)
        return inputs

    def cancels(self, following: Step) -> bool:
        """Whether this step and the one after it together do nothing, so that a chain may leave both out."""
        return False


class Composition(InvertibleModule):
    """An invertible module that is its :meth:`steps` in order, and nothing else; a subclass defines ``steps``."""

    def steps(self, inverse: bool = False) -> Iterable[Step]:
        raise NotImplementedError(f"{type(self).__name__}: a composition must define steps(inverse).")

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Run the steps in order, as plain autograd."""
        return as_state(run_steps(self.steps(), state, context))

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """Run the inverse steps in order, as plain autograd."""
        return as_state(run_steps(self.steps(inverse=True), state, context))


class Inverse(InvertibleModule):
    """The other direction of ``module``, itself an invertible module, and as cheap to train.

    Args:
        module: an invertible module; its parameters are shared, not copied.
    """

    def __init__(self, module: InvertibleModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, *state: Tensor, **context: Any) -> State:
        """``module.inverse``."""
        return self.module.inverse(*state, **context)

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """``module.forward``."""
        return self.module(*state, **context)

    def steps(self, inverse: bool = False) -> Iterable[Step]:
        return self.module.steps(not inverse)


def run_steps(steps: Iterable[Step], state: tuple[Tensor, ...], context: dict[str, Any]) -> tuple[Tensor, ...]:
    """Run steps in order as plain autograd: the slow, obvious twin of everything else in this package."""
    for step in steps:
        state = step.forward(*state, **context)
    return state


def observed(module: nn.Module) -> bool:
    """Whether someone has hooked ``module`` itself, so that it must be called as a whole for the hooks to fire."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def flatten(layers: Iterable[InvertibleModule], inverse: bool = False) -> list[Step]:
    """The steps of ``layers`` one after the other; neighbours that undo each other are left out."""
    steps: list[Step] = []
    for layer in reversed(list(layers)) if inverse else layers:
        for step in (Step(layer, inverse),) if observed(layer) else layer.steps(inverse):
            if steps and steps[-1].cancels(step):
                steps.pop()
            else:
                steps.append(step)
    return steps


def plain_only() -> bool:
    """Whether plain autograd is the only way: nothing to differentiate, or a transform that saves no tensors."""
    if not torch.is_grad_enabled() or torch.compiler.is_exporting():
        return True
    if torch.compiler.is_compiling():
        return False
    if torch.jit.is_tracing():  # type: ignore[attr-defined]  # torch.jit has no __all__
        return True
    # Inside torch.func or forward-mode differentiation: there is no public question for either.
    inside_transform = torch._C._functorch.peek_interpreter_stack() is not None
    return inside_transform or torch.autograd.forward_ad._current_level >= 0
