"""How exactly a layer or a network inverts itself: the relative error of ``inverse(forward(x))``.

An engine that rebuilds activations instead of keeping them computes its gradients at the rebuilt ones, so this error is
the first to look at when a deep or low-precision network trains badly. In decibels it is the signal-to-noise ratio
``-20 log10(error)``: 1e-6 is 120 dB.
"""

from __future__ import annotations

from typing import Any

import torch

from monai_invertible.autograd.module import as_tuple

__all__ = ["inversion_error"]


@torch.no_grad()
def inversion_error(module: Any, *state: torch.Tensor, **context: Any) -> float:
    """Relative error ``|inverse(forward(x)) - x| / |x|`` in the 2-norm, over all tensors of the state together.

    Args:
        module: anything with ``forward(*state, **context)`` and ``inverse(*state, **context)``.
        state: the tensors to send through and back.
        context: what both directions read.

    Returns:
        The error, a pure number; accumulated in double precision. Zero for an exact inverse of anything.

    Raises:
        ValueError: the inverse returns other shapes than those of ``state``.
    """
    there = as_tuple(module.forward(*(x.clone() for x in state), **context))
    back = as_tuple(module.inverse(*there, **context))
    if [x.shape for x in back] != [x.shape for x in state]:
        shapes = f"{[tuple(x.shape) for x in state]}, got {[tuple(x.shape) for x in back]}"
        raise ValueError(f"inversion_error: {type(module).__name__}.inverse must return tensors of shapes {shapes}.")
    error = sum(float((b.double() - x.double()).square().sum()) for b, x in zip(back, state, strict=True))
    size = sum(float(x.double().square().sum()) for x in state)
    return (error / size) ** 0.5 if size else error**0.5
