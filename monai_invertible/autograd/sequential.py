"""A chain of invertible layers that keeps only its output for the backward pass.

This is where the package saves memory: n layers cost the activations of one, and about one more forward evaluation
(Gomez et al., The Reversible Residual Network, 2017, arXiv 1707.04585, for the idea;
:mod:`monai_invertible.autograd.recompute` for the way).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from monai_invertible.autograd.backprop import BackpropSwitch
from monai_invertible.autograd.checkpointing import CheckpointedSteps
from monai_invertible.autograd.drift import DriftGuard
from monai_invertible.autograd.module import (
    Composition,
    Inverse,
    InvertibleModule,
    State,
    Step,
    as_state,
    as_tuple,
    flatten,
    observed,
    plain_only,
    run_steps,
    visited,
)
from monai_invertible.autograd.recompute import Walk

__all__ = ["InvertibleSequential"]


class InvertibleSequential(Composition, BackpropSwitch):
    r"""Invertible layers in order.

    ``forward``: :math:`f_n \circ \dots \circ f_1`. ``inverse``: :math:`f_1^{-1} \circ \dots \circ f_n^{-1}`.

    Saves for backward: its output, whatever its length. Recomputes: every layer's branch once. Error: that of the
    layers' inverses, added up. Under autocast the state is float32, whatever a convolution before the chain returned:
    the branches compute in the lower precision, their sums and inverses do not.

    Args:
        layers: invertible modules. Chains among them become part of this chain.
        backprop: ``"invert"`` recomputes activations from the output; ``"checkpoint"`` keeps each step's input
            (``torch.utils.checkpoint``); ``"store"`` is plain autograd. All give the same parameters, ``state_dict``
            and results. Within a chain that inverts, a chain with another mode keeps that.

    Attributes:
        guard: a :class:`~monai_invertible.autograd.DriftGuard`, which compares what the walk back finds with a small
            sample of the chain's input, warns and, when the way is lost, raises.

    Shapes: any state that the layers accept; a tensor or several tensors.

    Raises:
        TypeError: a layer is not an :class:`InvertibleModule`; a state without a floating-point tensor.
        ValueError: a state on several devices.
        RuntimeError: in backward, when the output or a parameter was changed in place since the forward, a branch
            does not repeat itself, or the recomputed input is far from what it was.
    """

    def __init__(self, *layers: InvertibleModule, backprop: str = "invert") -> None:
        super().__init__()
        for i, layer in enumerate(layers):
            if not isinstance(layer, InvertibleModule):
                raise TypeError(
                    f"InvertibleSequential: every layer must be an InvertibleModule, layer {i} is "
                    f"{type(layer).__name__}. Wrap it as the branch of a coupling, or put it outside the chain."
                )
            self.add_module(str(i), layer)
        self.backprop = backprop
        self.guard = DriftGuard()

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[InvertibleModule]:
        return iter(self._modules.values())  # type: ignore[arg-type]

    def __getitem__(self, index: int | slice) -> InvertibleModule:
        layers = list(self)
        if isinstance(index, slice):
            return InvertibleSequential(*layers[index], backprop=self.backprop)
        return layers[index]

    def steps(self, inverse: bool = False) -> list[Step]:
        return flatten(self, inverse)

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Map the state through the layers."""
        found = visited(self, self.steps, state, context)
        return self._run(False, state, context) if found is None else as_state(found)

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """Map an output state back, as cheap to train as :meth:`forward`."""
        found = visited(self, partial(self.steps, inverse=True), state, context)
        return self._run(True, state, context) if found is None else as_state(found)

    def _run(self, inverse: bool, state: tuple[Tensor, ...], context: dict[str, Any]) -> State:
        check_state(type(self).__name__, state)
        if torch.is_autocast_enabled(state[0].device.type):
            state = tuple(t.float() if t.dtype in (torch.bfloat16, torch.float16) else t for t in state)
        if self.backprop == "store" or plain_only():
            return as_state(run_steps(self.steps(inverse), state, context))
        if self.backprop == "checkpoint":
            return as_state(CheckpointedSteps(context, type(self).__name__).run_steps(self.steps(inverse), state))
        if torch.compiler.is_compiling():
            from monai_invertible.autograd.compiled import run_compiled  # loads the compiler, which takes its time

            return as_state(run_compiled(self, inverse, state, context, self._walk))
        return as_state(self._walk(inverse, state, context))

    def _walk(self, inverse: bool, state: tuple[Tensor, ...], context: dict[str, Any]) -> tuple[Tensor, ...]:
        for part in parts(self, inverse):
            if isinstance(part, list):
                state = Walk(part, context, self.guard, type(self).__name__).run(state)
            else:
                state = as_tuple(part(*state, **context))
        return state


def check_state(who: str, state: tuple[Tensor, ...]) -> None:
    """Raise an error unless a chain can differentiate the state."""
    for t in state:
        if not isinstance(t, Tensor):
            raise TypeError(f"{who}: the state must be tensors, got {type(t).__name__}. Give each as an argument.")
    if not any(t.is_floating_point() or t.is_complex() for t in state):
        kinds = [str(t.dtype) for t in state]
        raise TypeError(f"{who}: the state must be floating-point numbers, got {kinds}. Call .float() on it.")
    devices = sorted({str(t.device) for t in state})
    if len(devices) > 1:
        raise ValueError(f"{who}: the state must be on one device, got {devices}. Move its tensors with .to(device).")


def parts(chain: InvertibleSequential, inverse: bool) -> list[list[Step] | Callable[..., State]]:
    """What an inverting chain walks back through, and, in between, chains among its layers that have other modes."""
    if not has_other_modes(chain):
        return [chain.steps(inverse)]
    found: list[list[Step] | Callable[..., State]] = []
    layers: list[InvertibleModule] = []  # since the last such chain, in the order of execution

    def walk() -> None:
        if layers:
            found.append(flatten(layers))
            layers.clear()

    for layer in reversed(list(chain)) if inverse else chain:
        inner, back = inside(layer, inverse)
        if not isinstance(inner, InvertibleSequential) or not (inner.backprop != "invert" or has_other_modes(inner)):
            layers.append(Inverse(layer) if inverse else layer)
            continue
        walk()
        if inner.backprop == "invert" and (back or not observed(inner)):
            found += parts(inner, back)
        else:
            found.append(inner.inverse if back else inner)
    walk()
    return found


def has_other_modes(chain: InvertibleSequential) -> bool:
    """Whether a chain among the layers, or among theirs, does not invert."""
    inner = (inside(layer, False)[0] for layer in chain)
    return any(isinstance(c, InvertibleSequential) and (c.backprop != "invert" or has_other_modes(c)) for c in inner)


def inside(layer: InvertibleModule, inverse: bool) -> tuple[InvertibleModule, bool]:
    """What a layer is the inverse of, if it is one and nobody watches it, and in which direction that is run."""
    while isinstance(layer, Inverse) and not observed(layer):
        layer, inverse = layer.module, not inverse
    return layer, inverse
