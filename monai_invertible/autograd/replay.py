"""Repeat an evaluation exactly: random numbers, autocast, parameters, buffers, flags and hooks as they were.

A branch is evaluated twice in a training step, once in the forward and once while walking back. :class:`Environment`
remembers what the first evaluation could see besides its inputs, and puts it back for the second, which then leaves no
trace: batch statistics are updated once, the global random stream goes on as if nothing had happened, attributes that
a module sets stay as they were, forward hooks that only look on fire once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

__all__ = ["Environment"]

HOOKS = ("_forward_pre_hooks", "_forward_hooks")
LARGE = 4096  # numbers; a larger buffer is kept by reference, not by value, when nobody wrote to it


class Hook(NamedTuple):
    """A hook that took part in a computation."""

    function: Callable[..., Any]
    with_kwargs: bool
    changed_values: bool  # what its module receives or returns, and not only attributes of the module


class Environment:
    """What one evaluation of ``module`` may read apart from its inputs.

    Args:
        module: the module that is about to be evaluated.
        tensors: its inputs; their devices tell whose random state and autocast matter.
    """

    def __init__(self, module: nn.Module, tensors: tuple[Tensor, ...]) -> None:
        self.modules = list(module.modules())
        parameters = [(m, name, p) for m in self.modules for name, p in m._parameters.items() if p is not None]
        for m, name, p in parameters:
            if is_lazy(p):
                raise RuntimeError(
                    f"InvertibleSequential: parameter '{name}' of {type(m).__name__} is not initialised. Run the "
                    "network once under torch.no_grad() before training it."
                )
        self.sharded = [m for m in self.modules if is_sharding(m)]
        managed = {id(p) for m in self.sharded for p in m.parameters()}
        self.parameters = [
            (m, name, p, version(p), p.requires_grad) for m, name, p in parameters if id(p) not in managed
        ]
        # What a sharding module's parameters are, whole or a part of them, is its own affair; their values are not.
        self.shards = [(p, version(p)) for _, _, p in parameters if id(p) in managed and is_shard(p)]
        self.buffers = [
            # Training may change a buffer (batch statistics), so its value is kept; otherwise it must stay as it is.
            (m, name, b, version(b), b.clone() if m.training else None)
            for m in self.modules
            for name, b in m._buffers.items()
            if b is not None
        ]
        # Train/eval flags, counters, switches: what code of a module may branch on.
        self.numbers = [{k: v for k, v in vars(m).items() if type(v) in (bool, int, float)} for m in self.modules]
        self.devices = {"cpu": torch.device("cpu")} | {t.device.type: t.device for t in tensors if not t.is_meta}
        self.autocast = [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in self.devices]
        self.rng: list[tuple[torch.device, Tensor]] = []
        self.fake = any(isinstance(t, FakeTensor) for t in tensors)  # fake tensors draw no random numbers
        self.hooks = [(m, kind) for m in self.modules for kind in HOOKS if getattr(m, kind)]
        self.partakers: dict[tuple[nn.Module, str], dict[int, Hook]] = {}

    def references(self) -> set[int]:
        """Storages of the parameters and buffers: what is kept by reference, not recomputed."""
        return {storage(t) for _, _, t, _, _ in (*self.parameters, *self.buffers)}

    def changed_by_hooks(self, module: nn.Module) -> bool:
        """Whether a hook changed what ``module`` received or returned."""
        return any(h.changed_values for kind in HOOKS for h in self.partakers.get((module, kind), {}).values())

    @contextmanager
    def record(self) -> Iterator[None]:
        """Watch the first evaluation: random states it consumes, buffers it changes, hooks that take part."""
        before = [] if self.fake else [(d, rng_state(d)) for d in self.devices.values()]
        with self._watch_hooks() if self.hooks else ExitStack():
            yield
        self.rng = [(d, s) for d, s in before if not torch.equal(s, rng_state(d))]
        # Batch normalisation writes to small buffers past the version counter.
        self.buffers = [
            (m, name, b, v, None if b.numel() > LARGE and version(b) == v else value)
            for m, name, b, v, value in self.buffers
        ]

    @contextmanager
    def replay(self) -> Iterator[None]:
        """Put the remembered environment in place, and afterwards everything back.

        Raises:
            RuntimeError: when a parameter, or a buffer outside training, was changed in place since.
        """
        self._check_versions()
        with ExitStack() as stack:
            for device_type, enabled, dtype in self.autocast:
                if enabled or torch.is_autocast_enabled(device_type):
                    stack.enter_context(torch.autocast(device_type, dtype=dtype, enabled=enabled, cache_enabled=False))
            for m, numbers in zip(self.modules, self.numbers, strict=True):
                attributes = vars(m)
                stack.callback(_restore, attributes, dict(attributes))
                attributes.update(numbers)
            for m, name, p, _, requires_grad in self.parameters:
                if m._parameters.get(name) is not p:  # replaced since, or only lent by torch.func.functional_call
                    stack.callback(_restore, m._parameters, dict(m._parameters))
                    m._parameters[name] = p
                if p.requires_grad != requires_grad:
                    stack.callback(p.requires_grad_, p.requires_grad)
                    p.requires_grad_(requires_grad)
            for m, name, buffer, _, value in self.buffers:
                if value is not None or m._buffers.get(name) is not buffer:
                    stack.callback(_restore, m._buffers, dict(m._buffers))
                    m._buffers[name] = buffer if value is None else value.clone()
            for device, state in self.rng:
                stack.callback(set_rng_state, device, rng_state(device))
                set_rng_state(device, state)
            for m in self.modules:
                for kind in HOOKS:
                    self._keep_partakers(stack, m, kind)
            for m in self.sharded:
                m.unshard()  # type: ignore[operator]  # an inverse is not a call, before which its hook would do so
            yield

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """:meth:`record` and :meth:`replay`, as ``torch.utils.checkpoint`` asks for them."""
        return self.record(), _Repeatable(self.replay)

    def _check_versions(self) -> None:
        for p, expected in [(p, v) for _, _, p, v, _ in self.parameters] + self.shards:
            if version(p) != expected:
                raise RuntimeError(
                    f"InvertibleSequential: a parameter of shape {tuple(p.shape)} of {type(self.modules[0]).__name__} "
                    f"was changed in place between forward and backward (version {expected} became {version(p)}); "
                    "walking back needs the values of the forward. Call backward before optimizer.step(), or run the "
                    "forward again."
                )
        for m, name, buffer, expected, value in self.buffers:
            if value is None and version(buffer) != expected:
                raise RuntimeError(
                    f"InvertibleSequential: buffer '{name}' of {type(m).__name__} was changed in place between forward "
                    "and backward; walking back needs the values of the forward. Change it after backward."
                )

    @contextmanager
    def _watch_hooks(self) -> Iterator[None]:
        """Watch each hook, replaced in place, so that a hook that removes itself can do so."""
        replaced = []
        for module, kind in self.hooks:
            hooks = getattr(module, kind)
            for key, hook in list(hooks.items()):
                if shards(hook):
                    continue
                hooks[key] = self._watched(module, kind, key, hook)
                replaced.append((hooks, key, hook))
        try:
            yield
        finally:
            for hooks, key, hook in replaced:
                if key in hooks:
                    hooks[key] = hook

    def _watched(self, module: nn.Module, kind: str, key: int, hook: Callable[..., Any]) -> Callable[..., Any]:
        """The hook, with a record of whether it takes part.

        It does if it returns another value, writes to a tensor, or sets an attribute of its module, as that of weight
        norm does.
        """
        with_kwargs = key in getattr(module, kind + "_with_kwargs")

        def watched(*args: Any, **kwargs: Any) -> Any:
            tensors = [t for t in tree_leaves((args[1:], kwargs)) if isinstance(t, Tensor)]
            versions = [version(t) for t in tensors]
            before = dict(vars(module))
            result = hook(*args, **kwargs)
            same_values = versions == [version(t) for t in tensors] and (
                result is None or any(result is a for a in args)
            )
            now = vars(module)
            if not same_values or before.keys() != now.keys() or any(now[k] is not v for k, v in before.items()):
                self.partakers.setdefault((module, kind), {})[key] = Hook(hook, with_kwargs, not same_values)
            return result

        return watched

    def _keep_partakers(self, stack: ExitStack, module: nn.Module, kind: str) -> None:
        """Leave only those of the module's hooks that took part; one that changed values also if removed since."""
        hooks, flags = getattr(module, kind), getattr(module, kind + "_with_kwargs")
        partakers = self.partakers.get((module, kind), {})
        kept = {k: Hook(hook, k in flags, True) for k, hook in hooks.items() if shards(hook)}
        kept |= {key: h for key, h in partakers.items() if h.changed_values or key in hooks}
        if hooks or kept:
            stack.callback(_restore, hooks, dict(hooks))
            stack.callback(_restore, flags, dict(flags))
            _restore(hooks, {key: h.function for key, h in kept.items()})
            _restore(flags, {key: True for key, h in kept.items() if h.with_kwargs})


class _Repeatable:
    """A context that may be entered again and again, each time made anew."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self.make = make
        self.entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        context = self.make()
        context.__enter__()
        self.entered.append(context)

    def __exit__(self, *error: Any) -> bool | None:
        return self.entered.pop().__exit__(*error)


def is_sharding(module: nn.Module) -> bool:
    """Whether the module's parameters are shared out among processes by ``torch.distributed.fsdp.fully_shard``."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


def is_shard(parameter: Tensor) -> bool:
    """Whether the parameter is this process's part of one."""
    distributed = sys.modules.get("torch.distributed.tensor")
    return distributed is not None and isinstance(parameter, distributed.DTensor)


def shards(hook: Callable[..., Any]) -> bool:
    """Whether the hook is one by which ``fully_shard`` gathers parameters; it knows by itself of recomputations."""
    return getattr(hook, "__module__", "").startswith("torch.distributed.fsdp.")


def _restore(items: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Make ``items`` what it was, in its order; it stays the same dictionary."""
    if items.keys() == before.keys():
        for key, value in before.items():
            if items[key] is not value:
                items[key] = value
    else:
        items.clear()
        items.update(before)


def version(tensor: Tensor) -> int:
    """How often the tensor was changed in place, as far as that is counted (a compiler sees to it by itself)."""
    return 0 if torch.compiler.is_compiling() or tensor.is_inference() else tensor._version


def storage(tensor: Tensor) -> int:
    """What identifies the memory under a real, fake or meta tensor, as long as that memory lives."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else -id(tensor)


def unshared(tensor: Tensor) -> bool:
    """Whether nobody else holds the tensor's memory, and no two of its elements are one: it may be overwritten."""
    if tensor.layout is not torch.strided:
        return False
    memory = tensor.untyped_storage()
    holders = torch._C._storage_Use_Count(memory._cdata)  # there is no public question
    return dense(tensor) and holders == 2  # the tensor and ``memory``


def dense(tensor: Tensor) -> bool:
    """Whether the tensor has no gaps in memory, whatever the order of its dimensions."""
    if tensor.layout is not torch.strided or tensor.is_contiguous():
        return True
    return tensor.permute(sorted(range(tensor.ndim), key=tensor.stride, reverse=True)).is_contiguous()


def without_gaps(tensor: Tensor) -> Tensor:
    """A copy of a view with gaps, so that the larger tensor need not live on; any other tensor as it is."""
    return tensor if dense(tensor) else tensor.clone()


def rng_state(device: torch.device) -> Tensor:
    """The random state of a device."""
    return torch.get_rng_state() if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)


def set_rng_state(device: torch.device, state: Tensor) -> None:
    """Set the random state of a device."""
    if device.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)
