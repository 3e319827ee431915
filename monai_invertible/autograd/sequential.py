"""A chain of invertible layers that keeps only its output for the backward pass.

This is where the package saves memory: n layers cost the activations of one, and about one more forward evaluation
(Gomez et al., The Reversible Residual Network, 2017, arXiv 1707.04585, for the idea;
:mod:`monai_invertible.autograd.recompute` for the way).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from monai_invertible.autograd.backprop import BackpropSwitch
from monai_invertible.autograd.checkpointing import run_checkpointed
from monai_invertible.autograd.drift import DriftGuard
from monai_invertible.autograd.module import (
    Composition,
    InvertibleModule,
    State,
    Step,
    as_state,
    as_tuple,
    flatten,
    plain_only,
    run_steps,
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
        backprop: ``"invert"`` recomputes activations from the output; ``"checkpoint"`` keeps each layer's input
            (``torch.utils.checkpoint``); ``"store"`` is plain autograd. All give the same parameters, ``state_dict``
            and results.

    Attributes:
        guard: a :class:`~monai_invertible.autograd.DriftGuard`, which compares what the walk back finds with a small
            sample of the chain's input, warns and, when the way is lost, raises.

    Shapes: any state that the layers accept; a tensor or several tensors.

    Raises:
        TypeError: a layer is not an :class:`InvertibleModule`.
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
        return self._run(False, state, context)

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """Map an output state back, as cheap to train as :meth:`forward`."""
        return self._run(True, state, context)

    def _run(self, inverse: bool, state: tuple[Tensor, ...], context: dict[str, Any]) -> State:
        if state and torch.is_autocast_enabled(state[0].device.type):
            state = tuple(t.float() if t.dtype in (torch.bfloat16, torch.float16) else t for t in state)
        if self.backprop == "store" or plain_only():
            return as_state(run_steps(self.steps(inverse), state, context))
        if self.backprop == "checkpoint":
            layers = list(leaves(self))
            for layer in reversed(layers) if inverse else layers:
                function = layer.inverse if inverse else layer
                state = as_tuple(run_checkpointed(layer, *state, function=function, **context))
            return as_state(state)
        if torch.compiler.is_compiling():
            from monai_invertible.autograd.compiled import run_compiled  # loads the compiler, which takes its time

            return as_state(run_compiled(self, inverse, state, context, self._walk))
        return as_state(self._walk(inverse, state, context))

    def _walk(self, inverse: bool, state: tuple[Tensor, ...], context: dict[str, Any]) -> tuple[Tensor, ...]:
        return Walk(self.steps(inverse), context, self.guard).run(state, context)


def leaves(chain: InvertibleSequential) -> Iterator[InvertibleModule]:
    """The layers of a chain and of the chains in it."""
    for layer in chain:
        if isinstance(layer, InvertibleSequential):
            yield from leaves(layer)
        else:
            yield layer
