"""Tensors that no hook can replace: those that a custom autograd Function keeps on its ``ctx``."""

from __future__ import annotations

import warnings
import weakref

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction

from monai_invertible.autograd.module import Step

__all__ = ["warn_of_hidden_tensors"]

_inspected: weakref.WeakSet[torch.nn.Module] = weakref.WeakSet()


def warn_of_hidden_tensors(step: Step, outputs: tuple[Tensor, ...], inputs: tuple[Tensor, ...], who: str) -> None:
    """Warn, once a module, when a custom Function keeps tensors on its ``ctx``, where hooks cannot replace them."""
    if step.module in _inspected:
        return
    _inspected.add(step.module)
    seen = {t.grad_fn for t in inputs}
    nodes = [t.grad_fn for t in outputs]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name() == "CheckpointFunctionBackward":
            continue  # keeps a random state, which is small
        if isinstance(node, BackwardCFunction) and any(isinstance(v, Tensor) for v in vars(node).values()):
            warnings.warn(
                f"{who}: {node.name()} in {step} keeps tensors as attributes of its ctx, which stay in "
                "memory until backward (gradients are right). Use ctx.save_for_backward in that Function to save the "
                "memory.",
                stacklevel=4,
            )
        nodes += [following for following, _ in node.next_functions]
