"""Repeat an evaluation exactly: everything that it could read, apart from its inputs, is as it was.

A branch is evaluated twice in a training step, once in the forward and once while walking back. :class:`Environment`
remembers what the first evaluation could see besides its inputs, and puts it back for the second, which then leaves no
trace: batch statistics are updated once, random streams go on as if nothing had happened, attributes that a module sets
stay as they were, forward hooks that only look on fire once. What it covers, and what it does not, stands in
:class:`~monai_invertible.autograd.InvertibleModule`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from monai_invertible.autograd.attributes import Attributes
from monai_invertible.autograd.module_hooks import ModuleHooks
from monai_invertible.autograd.random_streams import RandomStreams, draws_outside_torch, streams_of
from monai_invertible.autograd.torch_internals import is_fake, is_shard, is_sharding, storage, version, writes_in_eval

__all__ = ["Environment"]

LARGE = 1 << 16  # numbers; a larger buffer is kept by reference, not by value
PROBES = 16  # of a large buffer, to see whether somebody writes to it unseen
locks: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()
finding_locks = threading.Lock()


class Parameter(NamedTuple):
    """A parameter as it was."""

    owner: nn.Module
    name: str
    tensor: Any
    version: int
    requires_grad: bool


class Buffer(NamedTuple):
    """A buffer as it was: by value if training may change it (batch statistics), otherwise it must stay as it is."""

    owner: nn.Module
    name: str
    tensor: Tensor
    version: int
    value: Tensor | None


class Environment:
    """What one evaluation of ``module`` may read apart from its inputs.

    Args:
        module: the module that is about to be evaluated.
        tensors: its inputs; with its parameters and buffers they tell on which devices random numbers matter.
        who: the class named in errors.
    """

    def __init__(self, module: nn.Module, tensors: Sequence[Tensor], who: str) -> None:
        self.who = who
        self.lock = lock_of(module)
        self.modules = modules_of(module)
        self.parameters: list[Parameter] = []
        self.buffers: list[Buffer] = []
        self.sharded = [m for m in self.modules if is_sharding(m)]
        # What a sharding module's parameters are, whole or a part of them, is its own affair; their values are not.
        managed = {id(p) for m in self.sharded for p in m.parameters()}
        self.shards: list[Parameter] = []
        self.probes: list[tuple[Buffer, Tensor]] = []
        devices, outside_torch = set(), False
        for t in tensors:
            devices.add(t.device)
        for m in self.modules:
            outside_torch = outside_torch or draws_outside_torch(m)
            for name, p in m._parameters.items():
                if p is not None:
                    self._remember_parameter(m, name, p, self.shards if id(p) in managed else self.parameters)
                    devices.add(p.device)
            for name, b in m._buffers.items():
                if b is not None:
                    self._remember_buffer(m, name, b)
                    devices.add(b.device)
        self.attributes = Attributes(self.modules, who)
        self.hooks = ModuleHooks(self.modules)
        types = {"cpu", *(d.type for d in devices if d.type != "meta")}
        self.autocast = [(d, torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in types]
        fake = any(is_fake(t) for t in tensors)  # fake tensors draw no random numbers
        self.random = RandomStreams([] if fake else streams_of(devices, outside_torch))
        self.recording = False

    def references(self) -> set[int]:
        """Storages of the parameters, buffers and other tensors: what is kept by reference, not recomputed."""
        found = {storage(p.tensor) for p in self.parameters}
        found.update(storage(b.tensor) for b in self.buffers)
        return found | self.attributes.references() if self.attributes.tensors else found

    def record(self, known: dict[Any, Any] | None = None) -> Recording:
        """A context for the first evaluation: what it draws and changes is remembered.

        ``known`` hands the states of random streams from one evaluation to the next.
        """
        return Recording(self, {} if known is None else known)

    def replay(self) -> Replay:
        """A context for a repetition: the remembered environment, and afterwards everything back.

        While it lasts, other threads that would evaluate the module wait.

        Raises:
            RuntimeError: on entering, if something that is kept by reference was changed in place since.
        """
        return Replay(self)

    @property
    def changes_itself(self) -> bool:
        """Whether the evaluation drew random numbers, or changed a buffer in a way that is counted."""
        return bool(self.random.drawn) or any(version(b.tensor) != b.version for b in self.buffers)

    def check_versions(self) -> None:
        """Raise RuntimeError if something that is kept by reference was changed in place since."""
        for p in (*self.parameters, *self.shards):
            if version(p.tensor) != p.version:
                raise RuntimeError(
                    f"{self.who}: a parameter of shape {tuple(p.tensor.shape)} of {type(self.modules[0]).__name__} "
                    f"was changed in place between forward and backward (version {p.version} became "
                    f"{version(p.tensor)}); walking back needs the values of the forward. Call backward before "
                    "optimizer.step(), or run the forward again."
                )
        for b in self.buffers:
            if b.value is None and version(b.tensor) != b.version:
                raise RuntimeError(
                    f"{self.who}: buffer '{b.name}' of {type(b.owner).__name__} was changed in place between forward "
                    "and backward; walking back needs the values of the forward. Change it after backward."
                )
        self.attributes.check_versions()

    def _remember_parameter(self, m: nn.Module, name: str, p: Tensor, among: list[Parameter]) -> None:
        if isinstance(p, UninitializedParameter):
            raise RuntimeError(
                f"{self.who}: parameter '{name}' of {type(m).__name__} is not initialised. Run the network once under "
                "torch.no_grad() before training it."
            )
        if among is self.parameters or is_shard(p):
            among.append(Parameter(m, name, p, version(p), p.requires_grad))

    def _remember_buffer(self, m: nn.Module, name: str, b: Tensor) -> None:
        # Batch normalisation writes past the version counter, so a change of it cannot be seen beforehand.
        small = (m.training or writes_in_eval(m)) and b.numel() <= LARGE
        self.buffers.append(Buffer(m, name, b, version(b), b.detach().clone() if small else None))
        if m.training and not small and b.layout is torch.strided and not is_fake(b):
            self.probes.append((self.buffers[-1], probe(b)))

    def check_probes(self) -> None:
        """Raise RuntimeError if somebody wrote to a large buffer without being counted."""
        for b, before in self.probes:
            if version(b.tensor) == b.version and not torch.equal(probe(b.tensor), before):
                raise RuntimeError(
                    f"{self.who}: training changes buffer '{b.name}' of {type(b.owner).__name__}, which is too large "
                    f"to be kept by value: {b.tensor.numel()} numbers, at most {LARGE}. Split it into smaller buffers."
                )


class Recording:
    """The first evaluation."""

    def __init__(self, environment: Environment, known: dict[Any, Any]) -> None:
        self.environment = environment
        self.known = known

    def __enter__(self) -> None:
        e = self.environment
        e.lock.acquire()
        e.recording = True
        e.random.begin(self.known)
        self.hooks = e.hooks.recording()
        self.hooks.__enter__()

    def __exit__(self, *error: Any) -> None:
        e = self.environment
        self.hooks.__exit__(*error)
        e.random.end(self.known)
        e.recording = False
        e.lock.release()
        if e.probes and error[0] is None:
            e.check_probes()


class Replay:
    """One repetition. Only what differs is put in place, since other threads may read it."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.entered: list[list[Callable[[], Any]]] = []  # a context that may be entered again and again

    def __enter__(self) -> None:
        e = self.environment
        e.check_versions()
        undo: list[Callable[[], Any]] = []
        self.entered.append(undo)
        if not e.recording:  # otherwise who records waits for this repetition, maybe in another thread
            e.lock.acquire()
            undo.append(e.lock.release)
        try:
            self._put_back(e, undo)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *error: Any) -> None:
        for function in reversed(self.entered.pop()):
            function()

    def _put_back(self, e: Environment, undo: list[Callable[[], Any]]) -> None:
        if torch.is_inference_mode_enabled():
            enter(torch.inference_mode(False), undo)
        for device_type, enabled, dtype in e.autocast:
            if enabled or torch.is_autocast_enabled(device_type):
                enter(torch.autocast(device_type, dtype=dtype, enabled=enabled, cache_enabled=False), undo)
        undo.append(e.attributes.put_back())
        before = [(d, d.copy()) for m in e.modules for d in (m._parameters, m._buffers)]
        undo.append(Undo(restored, before))
        for p in e.parameters:
            if p.owner._parameters.get(p.name) is not p.tensor:  # replaced since, or lent by functional_call
                p.owner._parameters[p.name] = p.tensor
            if p.tensor.requires_grad != p.requires_grad:
                undo.append(Undo(p.tensor.requires_grad_, p.tensor.requires_grad))
                p.tensor.requires_grad_(p.requires_grad)
        for b in e.buffers:
            if b.value is not None or b.owner._buffers.get(b.name) is not b.tensor:
                b.owner._buffers[b.name] = b.tensor if b.value is None else b.value.clone()
        undo.append(e.random.rewind())
        hooks = e.hooks.replaying()
        if type(hooks) is not nullcontext:
            enter(hooks, undo)
        for m in e.sharded:
            m.unshard()  # type: ignore[operator]  # an inverse is not a call, before which its hook would do so


class Undo:
    """A call for later."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments

    def __call__(self) -> None:
        self.function(*self.arguments)


def enter(context: AbstractContextManager[Any], undo: list[Callable[[], Any]]) -> None:
    """Enter a context until the repetition is over."""
    context.__enter__()
    undo.append(Undo(context.__exit__, None, None, None))


def restored(before: Sequence[tuple[Any, dict[str, Any]]]) -> None:
    """Make dictionaries what they were, in their order."""
    for now, old in before:
        if now.keys() != old.keys():
            now.clear()
            now.update(old)
        else:
            for name, value in old.items():
                if now[name] is not value:
                    now[name] = value


def lock_of(module: nn.Module) -> Any:
    """The lock under which a module is evaluated where it must be as it was, whichever chain or thread does it."""
    lock = locks.get(module)
    if lock is None:
        with finding_locks:
            lock = locks.setdefault(module, threading.RLock())
    return lock


def modules_of(module: nn.Module) -> list[nn.Module]:
    """As ``module.modules()``, in a third of the time: it is asked in every evaluation."""
    if not module._modules:
        return [module]
    found: dict[nn.Module, None] = {}
    waiting = [module]
    while waiting:
        m = waiting.pop()
        if m not in found:
            found[m] = None
            if m._modules:
                waiting.extend(child for child in m._modules.values() if child is not None)
    return list(found)


def probe(buffer: Tensor) -> Tensor:
    """A few numbers of a large buffer."""
    flat = buffer.detach().reshape(-1) if buffer.is_contiguous() else buffer.detach().select(0, 0).reshape(-1)
    return flat[:: max(flat.numel() // PROBES, 1)].clone()
