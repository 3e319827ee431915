"""The contract of an invertible layer, written once.

An author writes two directions of ordinary differentiable mathematics, ``forward`` and ``inverse``; nobody writes a
backward pass. A chain (:class:`~monai_invertible.autograd.InvertibleSequential`) sees every layer as a few
:class:`Step` objects, the units in which it runs forward and walks back. Most layers are one step and inherit it; a
layer that can find its inputs and repeat its forward in a single evaluation of its branch offers its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from monai_invertible.autograd.memory import own_memory
from monai_invertible.autograd.torch_internals import inside_transform, is_exporting, storage, version

__all__ = ["Composition", "Inverse", "InvertibleModule", "State", "Step", "Whole", "as_state", "as_tuple", "waiting"]

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
    is what a layer may read and nobody inverts; gradients flow into it. A subclass MUST, with the tensors on one
    device,

    - give ``inverse(*forward(*state, **context), **context) == state``, both ways round, for the same context;
    - accept context that it does not use (``**context``);
    - leave the tensors that it is given unchanged (no in-place operation on them).

    A chain evaluates a layer, or its branch, again in backward, and finds everything as it was in the forward: random
    numbers of torch on every device involved, of a ``torch.Generator``, ``random.Random`` or NumPy generator that is an
    attribute, and of the global ``random`` and ``numpy.random`` if the file with the module's class uses them;
    parameters and buffers, which are updated once; training flags and all other attributes, by identity, tensors among
    them also by version, lists, dictionaries and sets of up to 1000 items by their contents; autocast; inference mode;
    memory layouts; forward hooks, which fire again only where they take part, and no hook that was added since. What
    the repetition does to any of these is undone.

    A parameter, tensor or context that was changed in place since the forward, a branch that saves other tensors in the
    repetition, and an inverse that draws other random numbers than its forward are told by an error. So are, by the
    drift guard, recomputed inputs that are far from what they were. Nobody can see what a branch reads elsewhere:
    closures, global variables, files, the insides of other objects, values changed through ``.data``; nor are
    ``sdpa_kernel``, ``cudnn.flags``, TF32 switches, default dtype and device, or modes of torch functions remembered.
    These must stay as they are between forward and backward, and flags as long as a chain walks back. The random
    streams of the CPU and of Python are the process's: where one thread draws from them while another one walks back,
    the numbers of the first differ from what they were without the second, as under ``torch.utils.checkpoint``.
    """

    told_by_steps: ClassVar[bool] = True  # whether ``steps`` says what the class does

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        mro = cls.mro()
        forward, inverse, steps = (
            next(i for i, base in enumerate(mro) if name in vars(base)) for name in ("forward", "inverse", "steps")
        )
        # No subclass has changed the directions alone.
        cls.told_by_steps = steps <= min(forward, inverse) or mro[steps] is InvertibleModule

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

    def keep(self, *state: Tensor) -> tuple[Tensor, ...]:
        """What nobody could find again in the output, and must be kept of the input state; it should be small.

        :meth:`invert` and :meth:`recompute` are given it behind the output state.
        """
        return ()

    def recompute(
        self, evaluate: Callable[..., Any], capture: Callable[..., Any], *state: Tensor, **context: Any
    ) -> tuple[Tensor, ...]:
        """Find the input state of the output ``state`` and, on the way, repeat the forward once through ``capture``.

        ``capture(function, *inputs, **context)`` evaluates ``function`` while the tensors that autograd saves are
        collected, and returns its detached result; ``evaluate`` evaluates without. Each call of one of them finds
        random numbers, buffers and all that is not an input as the forward found them. ``inputs`` of ``capture`` are
        this step's input state in order; ``None`` stands for a tensor that ``function`` does not read. ``function``
        must save the same tensors in the same order as :meth:`forward`. The default inverts first and repeats
        afterwards; a step that needs its expensive part once for both overrides it.
        """
        inputs = evaluate(self.invert, *state, **context)
        capture(self.forward, *inputs, **context)
        return inputs

    def cancels(self, following: Step) -> bool:
        """Whether this step and the one after it together do nothing, so that a chain may leave both out."""
        return False


class Whole(Step):
    """A composition that is called as a whole, since somebody has hooked it; a walk gets its steps from it."""


class Composition(InvertibleModule):
    """An invertible module that is its :meth:`steps` in order, and nothing else; a subclass defines ``steps``."""

    def steps(self, inverse: bool = False) -> Iterable[Step]:
        raise NotImplementedError(f"{type(self).__name__}: a composition must define steps(inverse).")

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Run the steps in order, as plain autograd."""
        return as_state(visited(self, self.steps, state, context) or run_steps(self.steps(), state, context))

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """Run the inverse steps in order, as plain autograd."""
        backwards = partial(self.steps, inverse=True)
        return as_state(visited(self, backwards, state, context) or run_steps(backwards(), state, context))


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
        found = visited(self, self.steps, state, context)
        return self.module.inverse(*state, **context) if found is None else as_state(found)

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """``module.forward``."""
        found = visited(self, partial(self.steps, inverse=True), state, context)
        return self.module(*state, **context) if found is None else as_state(found)

    def steps(self, inverse: bool = False) -> Iterable[Step]:
        return flatten((self.module,), not inverse)


class Runner(Protocol):
    """Who runs the steps of a composition that is called as a whole."""

    def run_steps(self, steps: Iterable[Step], state: tuple[Tensor, ...]) -> tuple[Tensor, ...]: ...


class Visit:
    """A runner that waits for a module to be called, and what the module was given and gave."""

    def __init__(self, runner: Runner, module: nn.Module, given: tuple[Tensor, ...], context: dict[str, Any]) -> None:
        self.runner = runner
        self.module = module
        self.context = context
        self.given = [(t, version(t)) for t in given]
        self.found: list[tuple[Tensor, int]] | None = None
        self.changed = False

    def run(self, steps: Iterable[Step], state: tuple[Tensor, ...], context: dict[str, Any]) -> tuple[Tensor, ...]:
        """The module was called."""
        same_context = context.keys() == self.context.keys() and all(
            context[k] is v or (isinstance(v, Tensor) and same([(v, version(v))], (context[k],)))
            for k, v in self.context.items()
        )
        self.changed = not same_context or not same(self.given, state)
        outputs = self.runner.run_steps(steps, state)
        self.found = [(t, version(t)) for t in outputs]
        return outputs

    def undisturbed(self, outputs: tuple[Tensor, ...]) -> bool:
        """Whether nobody changed what the module was given, nor what it gave."""
        return self.found is not None and not self.changed and same(self.found, outputs)


class _Waiting(threading.local):
    def __init__(self) -> None:
        self.visits: list[Visit] = []


_waiting = _Waiting()


@contextmanager
def waiting(runner: Runner, module: nn.Module, given: tuple[Tensor, ...], context: dict[str, Any]) -> Iterator[Visit]:
    """When ``module`` is called with this state, ``runner`` runs its steps."""
    visit = Visit(runner, module, given, context)
    _waiting.visits.append(visit)
    try:
        yield visit
    finally:
        _waiting.visits.remove(visit)


def visited(
    module: nn.Module,
    steps: Callable[[], Iterable[Step]],
    state: tuple[Tensor, ...],
    context: dict[str, Any],
) -> tuple[Tensor, ...] | None:
    """The result of whoever waits for the module to be called; None if nobody does."""
    for visit in reversed(_waiting.visits):
        if visit.module is module and visit.found is None:
            return visit.run(steps(), state, context)
    return None


def same(before: list[tuple[Tensor, int]], now: tuple[Tensor, ...]) -> bool:
    """Whether tensors are the same memory, and unchanged."""
    return len(before) == len(now) and all(
        version(b) == count
        and (
            a is b
            or (storage(a) == storage(b) and a.storage_offset() == b.storage_offset())
            and (
                a.shape == b.shape
                and all(n <= 1 or s == t for n, s, t in zip(a.shape, a.stride(), b.stride(), strict=True))
            )
        )
        for (a, count), b in zip(before, now, strict=True)
    )


def run_steps(steps: Iterable[Step], state: tuple[Tensor, ...], context: dict[str, Any]) -> tuple[Tensor, ...]:
    """Run steps in order as plain autograd: the slow, obvious twin of everything else in this package."""
    for step in steps:
        state = run_step(step, state, context)
    return state


def run_step(step: Step, state: tuple[Tensor, ...], context: dict[str, Any]) -> tuple[Tensor, ...]:
    """The step's output state, in memory of its own: a view would keep the larger tensor alive until the next step.

    In every mode, since the layout of a branch's input decides the layout of a dropout's mask.
    """
    outputs = step.forward(*state, **context)
    if torch.compiler.is_compiling() or is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined]
        return outputs
    return tuple(own_memory(t) for t in outputs)


def observed(module: nn.Module) -> bool:
    """Whether someone has hooked ``module`` itself, so that it must be called as a whole for the hooks to fire."""
    return bool(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def flatten(layers: Iterable[InvertibleModule], inverse: bool = False) -> list[Step]:
    """The steps of ``layers`` one after the other; neighbours that undo each other are left out."""
    steps: list[Step] = []
    for layer in [layer for layer in layers][::-1] if inverse else layers:  # as every torch's compiler can read it
        for step in steps_of(layer, inverse):
            if steps and steps[-1].cancels(step):
                steps.pop()
            else:
                steps.append(step)
    return steps


def steps_of(layer: InvertibleModule, inverse: bool) -> Iterable[Step]:
    """What a chain executes for the layer; hooks are for calls, so they do not fire in the inverse direction."""
    attributes = layer.__dict__
    if "forward" in attributes or not type(layer).told_by_steps:
        return (Step(layer, inverse),)
    wrapped = "inverse" in attributes if inverse else observed(layer)  # as by register_fsdp_forward_method
    return (Whole(layer, inverse),) if wrapped and isinstance(layer, (Composition, Inverse)) else layer.steps(inverse)


def plain_only() -> bool:
    """Whether plain autograd is the only way: nothing to differentiate, or a transform that saves no tensors."""
    if not torch.is_grad_enabled() or is_exporting():
        return True
    if torch.compiler.is_compiling():
        return False
    if torch.jit.is_tracing():  # type: ignore[attr-defined]  # torch.jit has no __all__
        return True
    return inside_transform()
