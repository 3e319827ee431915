"""Activation checkpointing of one module: the fair peer of inversion, and the way for what cannot be inverted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from monai_invertible.autograd.containers import tensors_in
from monai_invertible.autograd.module import Step, Whole, plain_only, run_step, waiting
from monai_invertible.autograd.replay import Environment
from monai_invertible.autograd.torch_internals import outside_transforms, saving_hooks, version

__all__ = ["CheckpointedSteps", "run_checkpointed"]


def run_checkpointed(
    module: nn.Module, *inputs: Any, function: Callable[..., Any] | None = None, who: str = "", **context: Any
) -> Any:
    """Evaluate ``module`` so that it keeps its inputs for backward, and is evaluated again there.

    ``torch.utils.checkpoint``, with the second evaluation in the first one's environment: batch statistics are updated
    once, dropout repeats.

    Args:
        module: what is evaluated.
        inputs: its arguments; what backward needs of them stays in memory.
        function: another of its methods, such as ``module.inverse``; by default the module is called.
        who: the class named in errors; by default that of the module.
        context: its keyword arguments.
    """
    function = module if function is None else function
    if plain_only():
        return function(*inputs, **context)
    if torch.compiler.is_compiling():
        return checkpoint(function, *inputs, use_reentrant=False, **context)
    environment = Environment(module, tuple(tensors_in((inputs, context))), who or type(module).__name__)
    # To the end: some operations (RReLU) save a tensor before they fill it.
    with set_checkpoint_early_stop(False):
        return checkpoint(
            function,
            *inputs,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (environment.record(), _Recomputation(environment)),
            **context,
        )


class CheckpointedSteps:
    """Runs steps so that each keeps its input, and is evaluated again in backward.

    Args:
        context: what the steps may read.
        who: the class named in errors.
    """

    def __init__(self, context: dict[str, Any], who: str) -> None:
        self.context = context
        self.who = who

    def run_steps(self, steps: Iterable[Step], state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run them in order; one that is called as a whole, since it is hooked, comes back with its own steps."""
        for step in steps:
            if isinstance(step, Whole):
                with waiting(self, step.module, state, self.context):
                    state = step.forward(*state, **self.context)
            else:
                state = run_checkpointed(
                    step.module, *state, function=in_own_memory(step), who=self.who, **self.context
                )
        return state


def in_own_memory(step: Step) -> Callable[..., tuple[Tensor, ...]]:
    """The step's forward, as every mode runs it."""
    return lambda *state, **context: run_step(step, state, context)


class _Recomputation:
    """The second evaluation, in the environment of the first; it may be entered again and again.

    Raises RuntimeError for a tensor that was changed in place after autograd saved it. Plain autograd does that in
    backward; ``torch.utils.checkpoint`` does not, and would differentiate at the changed values.
    """

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.entered: list[tuple[ExitStack, list[tuple[Tensor, int]]]] = []

    def __enter__(self) -> None:
        with ExitStack() as stack:
            saved: list[tuple[Tensor, int]] = []
            around = saving_hooks()
            if around is not None:
                pack, unpack = around

                def save(tensor: Tensor) -> Any:
                    saved.append((tensor.detach(), version(tensor)))
                    return pack(tensor)

                stack.enter_context(saved_tensors_hooks(save, unpack))
            stack.enter_context(outside_transforms())
            stack.enter_context(self.environment.replay())
            self.entered.append((stack.pop_all(), saved))

    def __exit__(self, *error: Any) -> bool:
        stack, saved = self.entered.pop()
        stack.close()
        if self.environment.recording:
            # A branch differentiates itself while it still runs, and asks for what it has saved so far. What comes
            # behind that may fail here, as it stands on things that the first evaluation has not yet come to.
            return isinstance(error[1], Exception)
        if any(version(tensor) != expected for tensor, expected in saved):
            raise RuntimeError(
                f"{self.environment.who}: one of the variables needed for gradient computation has been modified by an "
                "inplace operation. Use inplace=False in the operation that follows the one whose result it changes."
            )
        return False
