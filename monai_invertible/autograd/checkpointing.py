"""Activation checkpointing of one module: the fair peer of inversion, and the way for what cannot be inverted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from monai_invertible.autograd.module import plain_only
from monai_invertible.autograd.replay import Environment

__all__ = ["run_checkpointed"]


def run_checkpointed(
    module: nn.Module, *inputs: Any, function: Callable[..., Any] | None = None, **context: Any
) -> Any:
    """Evaluate ``module`` so that it keeps its inputs for backward, and is evaluated again there.

    ``torch.utils.checkpoint``, with the second evaluation in the first one's environment: batch statistics are updated
    once, dropout repeats.

    Args:
        module: what is evaluated.
        inputs: its arguments; what backward needs of them stays in memory.
        function: another of its methods, such as ``module.inverse``; by default the module is called.
        context: its keyword arguments.
    """
    function = module if function is None else function
    if plain_only():
        return function(*inputs, **context)
    if torch.compiler.is_compiling():
        return checkpoint(function, *inputs, use_reentrant=False, **context)
    environment = Environment(module, tuple(x for x in inputs if isinstance(x, torch.Tensor)))
    return checkpoint(
        function, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=environment.contexts, **context
    )
