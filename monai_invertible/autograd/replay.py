"""Repeat an evaluation exactly: random numbers, autocast, train/eval flags, buffers and hooks as they were the first
time.

A branch is evaluated twice in a training step, once in the forward and once while walking back. :class:`Environment`
remembers what the first evaluation could see besides its inputs, and puts it back for the second, which then leaves no
trace: batch statistics are updated once, the global random stream goes on as if nothing had happened, forward hooks
that only look on fire once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

__all__ = ["Environment"]

HOOKS = ("_forward_pre_hooks", "_forward_hooks")


class Environment:
    """What one evaluation of ``module`` may read apart from its inputs.

    Args:
        module: the module that is about to be evaluated.
        tensors: its inputs; their devices tell whose random state and autocast matter.
    """

    def __init__(self, module: nn.Module, tensors: tuple[Tensor, ...]) -> None:
        self.modules = list(module.modules())
        self.training = [m.training for m in self.modules]
        self.parameters = [
            (p, p._version, p.requires_grad) for m in self.modules for p in m._parameters.values() if p is not None
        ]
        self.buffers = [
            # Training may change a buffer (batch statistics), so its value is kept; otherwise it must stay as it is.
            (m, name, b, b._version, b.clone() if m.training else None)
            for m in self.modules
            for name, b in m._buffers.items()
            if b is not None
        ]
        self.devices = {"cpu": torch.device("cpu")} | {t.device.type: t.device for t in tensors if not t.is_meta}
        self.autocast = [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in self.devices]
        self.rng: list[tuple[torch.device, Tensor]] = []
        self.fake = any(isinstance(t, FakeTensor) for t in tensors)  # fake tensors draw no random numbers
        self.hooks = [(getattr(m, name), m) for m in self.modules for name in HOOKS if getattr(m, name)]
        self.partakers: set[int] = set()  # keys of the hooks that took part in the computation

    def references(self) -> set[int]:
        """Storages of the parameters and buffers: what is kept by reference, not recomputed."""
        tensors = [p for p, _, _ in self.parameters] + [b for _, _, b, _, _ in self.buffers]
        return {storage(t) for t in tensors}

    @contextmanager
    def record(self) -> Iterator[None]:
        """Watch the first evaluation: which random states it consumes, which hooks take part."""
        before = [] if self.fake else [(d, rng_state(d)) for d in self.devices.values()]
        with self._swap_hooks(self._watched) if self.hooks else ExitStack():
            yield
        self.rng = [(d, s) for d, s in before if not torch.equal(s, rng_state(d))]

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
            for m, training in zip(self.modules, self.training, strict=True):
                if m.training != training:
                    stack.callback(setattr, m, "training", m.training)
                    m.training = training
            for p, _, requires_grad in self.parameters:
                if p.requires_grad != requires_grad:
                    stack.callback(p.requires_grad_, p.requires_grad)
                    p.requires_grad_(requires_grad)
            for m, name, buffer, _, value in self.buffers:
                if value is not None or m._buffers[name] is not buffer:
                    stack.callback(m._buffers.__setitem__, name, m._buffers[name])
                    m._buffers[name] = buffer if value is None else value.clone()
            for device, state in self.rng:
                stack.callback(set_rng_state, device, rng_state(device))
                set_rng_state(device, state)
            if self.hooks:
                stack.enter_context(self._swap_hooks(self._muted))
            yield

    def contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """:meth:`record` and :meth:`replay`, as ``torch.utils.checkpoint`` asks for them."""
        return self.record(), self.replay()

    def _check_versions(self) -> None:
        for p, version, _ in self.parameters:
            if p._version != version:
                raise RuntimeError(
                    f"InvertibleSequential: a parameter of shape {tuple(p.shape)} of {type(self.modules[0]).__name__} "
                    "was changed in place "
                    f"between forward and backward (version {version} became {p._version}); walking back needs the "
                    "values of the "
                    "forward. Call backward before optimizer.step(), or run the forward again."
                )
        for m, name, buffer, version, value in self.buffers:
            if value is None and buffer._version != version:
                raise RuntimeError(
                    f"InvertibleSequential: buffer '{name}' of {type(m).__name__} was changed in place between forward "
                    "and backward; "
                    "walking back needs the values of the forward. Change it after backward."
                )

    @contextmanager
    def _swap_hooks(
        self, swapped: Callable[[nn.Module, int, Callable[..., Any]], Callable[..., Any]]
    ) -> Iterator[None]:
        """Have each hook replaced by ``swapped(module, key, hook)``, in place, so that removing one in the meantime
        works."""
        replaced = []
        for hooks, module in self.hooks:
            for key, hook in list(hooks.items()):
                hooks[key] = swapped(module, key, hook)
                replaced.append((hooks, key, hook))
        try:
            yield
        finally:
            for hooks, key, hook in replaced:
                if key in hooks:
                    hooks[key] = hook

    def _watched(self, module: nn.Module, key: int, hook: Callable[..., Any]) -> Callable[..., Any]:
        """The hook; it takes part if it returns a value or sets an attribute of its module (as weight norm's hook
        does)."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            before = dict(module.__dict__)
            result = hook(*args, **kwargs)
            unchanged = before.keys() == module.__dict__.keys() and all(
                module.__dict__[k] is v for k, v in before.items()
            )
            if result is not None or not unchanged:
                self.partakers.add(key)
            return result

        return watched

    def _muted(self, module: nn.Module, key: int, hook: Callable[..., Any]) -> Callable[..., Any]:
        return hook if key in self.partakers else _look_away


def _look_away(*args: Any, **kwargs: Any) -> None:
    """Stands in for a hook that must not fire again."""


def storage(tensor: Tensor) -> int:
    """What identifies the memory under a tensor, for real, fake and meta tensors alike; valid as long as that memory
    lives."""
    return tensor.untyped_storage()._cdata


def rng_state(device: torch.device) -> Tensor:
    """The random state of a device."""
    return torch.get_rng_state() if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)


def set_rng_state(device: torch.device, state: Tensor) -> None:
    """Set the random state of a device."""
    if device.type == "cpu":
        torch.set_rng_state(state)
    else:
        torch.get_device_module(device).set_rng_state(state, device)
