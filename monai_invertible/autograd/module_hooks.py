"""Forward hooks in a recomputation: those that only look fire once, those that take part fire again.

A hook takes part if it returns another value, writes to a tensor, or sets an attribute of its module, as that of weight
norm does. To see it, and to silence a hook in a recomputation, each hook is wrapped where it stands for as long as
somebody needs it. The wrapper asks what its own thread is doing, so that others who use the module meanwhile notice
nothing, and the dictionaries of hooks, which replicas of a module share, are as before when the last user has left.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules import module as torch_module

from monai_invertible.autograd.containers import tensors_in
from monai_invertible.autograd.torch_internals import saving_hooks, shards, version

__all__ = ["ModuleHooks"]

KINDS = ("_forward_pre_hooks", "_forward_hooks")
EVERYWHERE = tuple(getattr(torch_module, f"_global{kind}", {}) for kind in KINDS)  # hooks of all modules
changing = threading.Lock()  # held while hooks are wrapped and unwrapped


class _Activity(threading.local):
    """What this thread is doing, from the outermost evaluation to the innermost."""

    def __init__(self) -> None:
        self.evaluations: list[tuple[ModuleHooks, bool]] = []  # whose hooks, and whether it is a repetition


activity = _Activity()


class Partaker(NamedTuple):
    """A hook that took part in a computation."""

    hook: Any
    with_kwargs: bool
    changed_values: bool  # what its module receives or returns, and not only attributes of the module


class ModuleHooks:
    """The forward hooks of ``modules``, and those of all modules, in one evaluation and its repetitions.

    Args:
        modules: whose hooks.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.places: list[tuple[Any, Any]] = []  # the dictionary of hooks, and that of those which take keywords
        for hooks in EVERYWHERE:
            if hooks:
                self.places.append((hooks, {}))
        for m in modules:
            if m._forward_hooks or m._forward_pre_hooks:
                self.places += [(getattr(m, kind), getattr(m, kind + "_with_kwargs")) for kind in KINDS]
        self.modules = modules
        self.partakers: dict[tuple[int, int], Partaker] = {}  # by dictionary and key, in their order

    def changed_values(self, module: nn.Module) -> bool:
        """Whether a hook changed what ``module`` received or returned."""
        places = {id(getattr(module, kind)) for kind in KINDS}
        return any(p.changed_values and place in places for (place, _), p in self.partakers.items())

    def recording(self) -> AbstractContextManager[None]:
        """Watch the first evaluation."""
        return self._evaluation(repeats=False) if self.places else nullcontext()

    def replaying(self) -> AbstractContextManager[None]:
        """Let those fire that took part, also if removed since, and no others."""
        if not self.places and not any(m._forward_hooks or m._forward_pre_hooks for m in self.modules):
            if not any(EVERYWHERE):
                return nullcontext()
        return self._evaluation(repeats=True)

    @contextmanager
    def _evaluation(self, repeats: bool) -> Iterator[None]:
        places = self.places if not repeats else [*self.places, *ModuleHooks(self.modules).places]
        wrapped: list[tuple[Any, int, Watched]] = []
        guests: list[tuple[Any, Any, int]] = []
        with changing:
            if repeats:
                guests = self._invite(places)
            for place, _ in {id(place): (place, flags) for place, flags in places}.values():
                wrapped += [(place, key, watch(place, key, hook)) for key, hook in place.items() if not shards(hook)]
        activity.evaluations.append((self, repeats))
        try:
            yield
        finally:
            activity.evaluations.pop()
            with changing:
                for place, key, hook in wrapped:
                    hook.users -= 1
                    if hook.users == 0 and place.get(key) is hook:
                        place[key] = hook.hook
                for place, flags, key in guests:
                    place.pop(key, None)
                    flags.pop(key, None)

    def _invite(self, places: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any, int]]:
        """Put back those that changed values and were removed since, where they stood, for this thread alone."""
        by_id = {id(place): (place, flags) for place, flags in places}
        guests = []
        for (where, key), partaker in self.partakers.items():
            place, flags = by_id[where]
            if partaker.changed_values and key not in place:
                place[key] = Guest(partaker.hook, self)
                if partaker.with_kwargs:
                    flags[key] = True
                guests.append((place, flags, key))
        for place, _, _ in guests:
            for where, key in self.partakers:
                if where == id(place) and key in place:
                    place.move_to_end(key)
        return guests

    def note(self, place: Any, key: int, hook: Any, changed_values: bool) -> None:
        """A hook took part."""
        flags: Any = next((flags for other, flags in self.places if other is place), {})
        self.partakers[id(place), key] = Partaker(hook, key in flags, changed_values)


def watch(place: Any, key: int, hook: Any) -> Watched:
    """The hook in its wrapper, which stands in its place from now on."""
    if not isinstance(hook, Watched):
        hook = place[key] = Watched(place, key, hook)
    hook.users += 1
    return hook


class Watched:
    """A hook that fires as this thread's evaluations want it to."""

    def __init__(self, place: Any, key: int, hook: Any) -> None:
        self.place = place
        self.key = key
        self.hook = hook
        self.users = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["hook"], name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        here = id(self.place), self.key
        recorders = []
        for hooks, repeats in activity.evaluations:
            if not any(place is self.place for place, _ in hooks.places) and not repeats:
                continue
            if not repeats:
                recorders.append(hooks)
            elif here not in hooks.partakers:
                return None
        if not recorders:
            return self.hook(*args, **kwargs)
        tensors = list(tensors_in((args[1:], kwargs)))
        versions = [version(t) for t in tensors]
        before = dict(vars(args[0]))
        saving = Saving(saving_hooks())
        with saving:
            result = self.hook(*args, **kwargs)
        same_values = versions == [version(t) for t in tensors] and (result is None or any(result is a for a in args))
        now = vars(args[0])
        if not same_values or before.keys() != now.keys() or any(now[k] is not v for k, v in before.items()):
            saving.takes_part()
            for hooks in recorders:
                hooks.note(self.place, self.key, self.hook, not same_values)
        return result


class Guest:
    """A hook that was removed, and stands in for a repetition in one thread."""

    def __init__(self, hook: Any, hooks: ModuleHooks) -> None:
        self.hook = hook
        self.hooks = hooks

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        mine = any(hooks is self.hooks for hooks, _ in activity.evaluations)
        return self.hook(*args, **kwargs) if mine else None


class Saving:
    """What a hook computes, and autograd saves, belongs to the module only if the hook takes part."""

    def __init__(self, around: Any) -> None:
        self.around = around
        self.held: list[Held] = []
        self.hooks = saved_tensors_hooks(self._pack, self._unpack) if around else nullcontext()

    def __enter__(self) -> None:
        self.hooks.__enter__()

    def __exit__(self, *error: Any) -> None:
        self.hooks.__exit__(*error)

    def takes_part(self) -> None:
        """Hand over to the hooks around, in the order in which it was saved."""
        for held in self.held:
            held.packed, held.tensor = self.around[0](held.tensor), None

    def _pack(self, tensor: Tensor) -> Held:
        self.held.append(Held(tensor.detach()))
        return self.held[-1]

    def _unpack(self, held: Held) -> Tensor:
        return self.around[1](held.packed) if held.tensor is None else held.tensor


class Held:
    """A saved tensor of a hook of which nobody knows yet whether it takes part."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor
        self.packed: Any = None
