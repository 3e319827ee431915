"""Count the bytes of the tensors that are alive, operation by operation.

Training memory is what autograd keeps alive between forward and backward, so the honest figure is neither a formula nor
a process size but the sum over the living storages. A storage lives as long as anybody holds it: a Python variable, a
view, or a node of the autograd graph that no Python variable points to. ``LiveBytes`` watches every operation through a
``TorchDispatchMode``, adds each new storage once, and keeps only a weak reference to it, whose callback subtracts the
bytes at the moment the last holder lets go.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["LiveBytes", "PhaseBytes"]

_FRESH = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift.default)  # their input is new: `torch.tensor([1.0])`


class PhaseBytes(NamedTuple):
    """Bytes alive at the end of a phase (``current``) and the highest figure within it (``peak``)."""

    current: int
    peak: int


class LiveBytes(TorchDispatchMode):
    """Context that counts the bytes of living tensor storages, with their peak.

    Counted, in bytes, each storage once however many tensors view it:

    - every storage that an operation inside the context creates, in forward as well as in backward, until it is freed;
    - the storages of ``include``, from the start.

    Not counted: tensors that existed before and are not in ``include`` (parameters and inputs, as a rule); what a
    kernel allocates for itself (convolution workspace, the inside of a compiled function); what an allocator holds in
    reserve; sparse tensors. So for a GPU this is a lower bound, never a measurement.

    Works on real tensors and on fake ones (``torch._subclasses.FakeTensorMode``), where paper sizes cost nothing.
    Dispatch modes belong to a thread: on a CPU, backward runs in the calling thread and is seen; threads that the user
    starts are not. On CUDA, where autograd has threads of its own, the counter is untested.

    Args:
        include: existing tensors to count from the start, such as ``network.parameters()``.

    Attributes:
        current: bytes alive now.
        peak: highest ``current`` since the start or since ``reset_peak()``.
        phases: the ``PhaseBytes`` of each ``mark(name)``, in order.

    Example::

        with LiveBytes() as live:
            loss = network(image).square().mean()
            live.mark("forward")
            loss.backward()
            live.mark("backward")
        kept_for_backward, step_peak = live.phases["forward"].current, live.peak
    """

    def __init__(self, include: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.current = 0
        self.peak = 0
        self.phases: dict[str, PhaseBytes] = {}
        self._phase_peak = 0
        self._live: dict[int, tuple[weakref.ref, int]] = {}
        for storage in _storages(list(include)).values():
            self._count(storage)

    def mark(self, name: str) -> PhaseBytes:
        """End a phase: remember the bytes alive now and the peak since the mark before."""
        self.phases[name] = PhaseBytes(self.current, self._phase_peak)
        self._phase_peak = self.current
        return self.phases[name]

    def reset_peak(self) -> None:
        """Start the peak, and the phase, again from what is alive now."""
        self.peak = self._phase_peak = self.current

    def __enter__(self) -> LiveBytes:
        super().__enter__()
        resize = self._resize = torch.UntypedStorage.resize_

        def resize_and_count(storage: torch.UntypedStorage, size: int) -> Any:
            result = resize(storage, size)
            if storage._cdata in self._live:
                self._count(storage)
            return result

        # Not an operation, so no dispatch mode sees it; some libraries free memory this way.
        torch.UntypedStorage.resize_ = resize_and_count  # type: ignore[assignment,method-assign]
        return self

    def __exit__(self, *error: Any) -> None:
        torch.UntypedStorage.resize_ = self._resize  # type: ignore[method-assign]
        super().__exit__(*error)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        existing = {} if func in _FRESH else _storages((args, kwargs))
        result = func(*args, **kwargs)
        for key, storage in _storages(result).items():
            if key in self._live or key not in existing:  # a view of an uncounted tensor stays uncounted
                self._count(storage)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        """Add a new storage, or correct the size of a known one."""
        key, size = storage._cdata, storage.nbytes()
        reference, before = self._live.get(key) or (weakref.ref(storage, partial(self._freed, key)), 0)
        self._live[key] = (reference, size)
        self.current += size - before
        self.peak = max(self.peak, self.current)
        self._phase_peak = max(self._phase_peak, self.current)

    def _freed(self, key: int, reference: weakref.ref) -> None:
        if key in self._live and self._live[key][0] is reference:
            self.current -= self._live.pop(key)[1]


def _storages(tree: Any) -> dict[int, torch.UntypedStorage]:
    """The storages of the tensors in a nest of containers, by identity."""
    found = {}
    for leaf in tree_leaves(tree):
        if isinstance(leaf, torch.UntypedStorage):
            found[leaf._cdata] = leaf
        elif isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided:
            storage = leaf.untyped_storage()
            found[storage._cdata] = storage
    return found
