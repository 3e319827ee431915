"""Everything of torch that has no public name and that the engine asks nevertheless, each with what is done without it.

A torch that lacks one of these costs memory or a refusal, never a wrong result. Whatever differs between the versions
of torch that the package supports is in this file, and ``tests/autograd/test_torch_internals.py`` holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "graph_is_retained",
    "holders",
    "inside_transform",
    "is_fake",
    "outside_transforms",
    "saving_hooks",
    "storage",
    "version",
    "writes_in_eval",
]


def version(tensor: Tensor) -> int:
    """How often the tensor was changed in place, as far as that is counted (a compiler sees to it by itself).

    Without it: as if nothing had been changed. An inference tensor counts nothing.
    """
    if torch.compiler.is_compiling():
        return 0
    try:
        return tensor._version
    except RuntimeError:
        return 0


def storage(tensor: Tensor) -> int:
    """What identifies the memory under a real, fake or meta tensor, as long as that memory lives.

    The public ``data_ptr`` is zero for fake and for empty tensors.
    """
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else -id(tensor)


def holders(memory: torch.UntypedStorage) -> int | None:
    """How many tensors and storages of Python and C++ share this memory; None where nobody knows.

    Without it: memory is never used again, which costs half a state at the peak.
    """
    count = getattr(torch._C, "_storage_Use_Count", None)
    return None if count is None else count(memory._cdata)


def graph_is_retained() -> bool:
    """Whether the backward that is running keeps its graph.

    Without it: as if it did; a chain's output then lives until its graph is dropped.
    """
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if ask is None else ask()


def inside_transform() -> bool:
    """Whether this runs inside ``torch.func`` or forward-mode differentiation, which save no tensors.

    Without it: as if not; ``torch.func`` then refuses the hooks of the engine with an error of its own.
    """
    functorch = getattr(torch._C, "_functorch", None)
    peek = getattr(functorch, "peek_interpreter_stack", None)
    if peek is not None and peek() is not None:
        return True
    return getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0


@contextmanager
def outside_transforms() -> Iterator[None]:
    """As if no transform were running: what a chain recomputes in a batched backward is not batched.

    A backward with ``is_grads_batched=True`` counts its nesting; ``torch.func`` has a stack of interpreters. Without
    them: random numbers are refused there by torch.
    """
    nesting = batched_backwards()
    for _ in range(nesting):
        torch._C._vmapmode_decrement_nesting()
    try:
        if inside_transform():
            from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack

            with temporarily_clear_interpreter_stack():
                yield
        else:
            yield
    finally:
        for _ in range(nesting):
            torch._C._vmapmode_increment_nesting()


def batched_backwards() -> int:
    """How many backwards with batches of gradients are running, one within the other."""
    if not hasattr(torch._C, "_vmapmode_increment_nesting"):
        return 0
    nesting = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    return nesting


def saving_hooks() -> tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]] | None:
    """The innermost ``saved_tensors_hooks``; None if there are none, or nobody knows.

    Without it: what a module's hook computes counts as a part of the module, and must repeat itself.
    """
    ask = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
    return None if ask is None else ask(False)


def is_fake(tensor: Tensor) -> bool:
    """Whether the tensor only describes one: a meta tensor, or one of a ``FakeTensorMode``."""
    return tensor.is_meta or (
        type(tensor) is not Tensor and any(c.__name__ == "FakeTensor" for c in type(tensor).mro())
    )


def writes_in_eval(module: nn.Module) -> bool:
    """Whether evaluation may count as a change of the module's buffers, which stay as they are.

    In torch 2.8 instance norm with running statistics writes them back. Such buffers are kept by value, as in training.
    """
    return isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats
