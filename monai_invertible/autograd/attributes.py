"""The attributes of modules as they were: flags, numbers, texts, tensors, containers, generators of random numbers.

What code of a module may branch on or compute with, besides parameters and buffers. Attributes are remembered by
identity; lists, tuples, dictionaries and sets by their contents, however they are nested; tensors by their version too;
generators of random numbers by their state. What a repetition does to any of them is undone.
"""

from __future__ import annotations

import copy
import random
import sys
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_invertible.autograd.torch_internals import storage, version

__all__ = ["Attributes", "refuse_generators"]

MACHINERY = frozenset(vars(nn.Module())) - {"training"}  # parameters, buffers, children, hooks: not attributes
SIMPLE = frozenset(
    (bool, int, float, complex, str, bytes, type(None), type, slice, range, ModuleType, FunctionType, MethodType)
    + (BuiltinFunctionType, torch.dtype, torch.device, torch.Size, torch.memory_format)
)
CONTAINERS = frozenset((list, tuple, dict, set, deque, OrderedDict, defaultdict))
LONG = 1000  # items; what a longer container holds is not looked at
MISSING: Any = object()
Make = Callable[[dict[int, Any]], Any]  # gives what a repetition reads; the dictionary holds what it has so far


class OfModule(NamedTuple):
    """The attributes of one module."""

    now: dict[str, Any]  # as they are at any time
    names: tuple[str, ...]
    simple: dict[str, Any]
    other: dict[str, Make]


class Attributes:
    """What the attributes of some modules are now.

    Args:
        modules: whose attributes.
        who: the class named in errors.
    """

    def __init__(self, modules: Sequence[nn.Module], who: str) -> None:
        self.who = who
        self.tensors: list[tuple[str, Tensor, int]] = []  # name, tensor and version
        self.generators: list[Drawing] = []
        self.modules: list[OfModule] = []
        known: dict[int, Make] = {}  # a list that two modules share stays one list
        for m in modules:
            now = vars(m)
            simple: dict[str, Any] = {}
            other: dict[str, Make] = {}
            constant = type(m).__module__.startswith("torch.nn.modules")  # their containers never change
            for name, value in now.items():
                if type(value) in SIMPLE and not (type(value) is FunctionType and holds_graph(value)):
                    simple[name] = value
                elif name not in MACHINERY and (not constant or isinstance(value, Tensor)):
                    other[name] = self._remember(f"'{name}' of {type(m).__name__}", value, known)
            self.modules.append(OfModule(now, tuple(now), simple, other))

    def references(self) -> set[int]:
        """Storages of tensors that are attributes: kept by reference, not recomputed."""
        return {storage(t) for _, t, _ in self.tensors}

    @property
    def drawn(self) -> bool:
        """Whether a generator has been drawn from since."""
        return any(generator.drawn for generator in self.generators)

    def check_versions(self) -> None:
        """Raise RuntimeError if a tensor was changed in place since."""
        for name, tensor, expected in self.tensors:
            if version(tensor) != expected:
                raise RuntimeError(
                    f"{self.who}: a tensor in attribute {name} was changed in place between forward and backward, so "
                    "the layer does not repeat itself; walking back needs the values of the forward. Change it after "
                    "backward, or put a new tensor in its place."
                )

    def put_back(self) -> Callable[[], None]:
        """Make the attributes what they were, and return what undoes that and all that happens to them meanwhile."""
        made: dict[int, Any] = {}
        before: list[tuple[dict[str, Any], dict[str, Any]]] = []
        flags: list[tuple[dict[str, Any], Any, Any]] = []
        for now, names, simple, other in self.modules:
            before.append((now, now.copy()))
            for name, value in simple.items():
                current = now.get(name, MISSING)
                if current is not value:
                    now[name] = value
                    if name == "training":
                        flags.append((now, current, value))
            for name, make in other.items():
                now[name] = make(made)
            if len(now) != len(names):
                for name in now.keys() - set(names):
                    del now[name]
        return lambda: undo(before, flags)

    def _remember(self, name: str, value: Any, known: dict[int, Make]) -> Make:
        """How a repetition comes to the value; a graph behind it must not live on for that."""
        if id(value) not in known:
            if isinstance(value, FunctionType) and holds_graph(value):
                return Weak(name, value, self.who)
            if isinstance(value, Tensor):
                tensor = value if value.grad_fn is None else value.detach().requires_grad_(value.requires_grad)
                self.tensors.append((name, tensor, version(value)))
                known[id(value)] = Same(tensor)
            elif type(value) in CONTAINERS and len(value) <= LONG:
                known[id(value)] = container = Container(value)
                container.items = [self._remember(name, item, known) for item in container.contents(value)]
            elif type(value) in SIMPLE:
                return Same(value)  # numbers that are equal need not be one
            elif is_generator(value):
                known[id(value)] = drawing = Drawing(value)
                self.generators.append(drawing)
            else:
                known[id(value)] = Weak(name, value, self.who) if holds_graph(value) else Same(value)
        return known[id(value)]


class Same:
    """The value itself."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, made: dict[int, Any]) -> Any:
        return self.value


class Weak:
    """An object with a graph behind it, which lives as long as somebody else needs it."""

    def __init__(self, name: str, value: Any, who: str) -> None:
        self.name = name
        self.who = who
        try:
            self.find: Callable[[], Any] = weakref.ref(value)
        except TypeError:  # a kind of object that cannot be referred to weakly
            self.find = lambda: None

    def __call__(self, made: dict[int, Any]) -> Any:
        value = self.find()
        if value is None:
            raise RuntimeError(
                f"{self.who}: the object in attribute {self.name}, which held activations, is gone in backward. Keep "
                "tensors, or lists of them, in attributes, and detach them."
            )
        return value


class Container:
    """A list, tuple, set or dictionary with the contents it had."""

    def __init__(self, value: Any) -> None:
        self.keys = list(value) if isinstance(value, dict) else None
        self.empty: Any = None  # of a tuple, which cannot be filled
        if type(value) is not tuple:
            self.empty = copy.copy(value)
            self.empty.clear()
        self.items: list[Make] = []

    def contents(self, value: Any) -> list[Any]:
        """What is to be remembered of it."""
        return list(value.values() if isinstance(value, dict) else value)

    def __call__(self, made: dict[int, Any]) -> Any:
        if id(self) in made:
            return made[id(self)]
        if self.empty is None:
            return made.setdefault(id(self), tuple(item(made) for item in self.items))
        container = made[id(self)] = copy.copy(self.empty)  # before its contents, which may hold it
        items = [item(made) for item in self.items]
        if self.keys is not None:
            container.update(zip(self.keys, items, strict=True))
        else:
            (container.update if isinstance(container, set) else container.extend)(items)
        return container


class Drawing:
    """A random number generator in the state it had."""

    def __init__(self, value: Any) -> None:
        self.generator = value
        self.state = duplicate(value)

    @property
    def drawn(self) -> bool:
        """Whether it has been drawn from since."""
        return not same_state(self.generator, self.state)

    def __call__(self, made: dict[int, Any]) -> Any:
        if id(self) not in made:
            made[id(self)] = duplicate(self.state)
        return made[id(self)]


def undo(
    before: Sequence[tuple[dict[str, Any], dict[str, Any]]], flags: Sequence[tuple[dict[str, Any], Any, Any]]
) -> None:
    """As before; but a flag ``training`` that somebody else has set meanwhile, in another thread, stays as it is."""
    for now, old in before:
        if len(now) != len(old):
            for name in now.keys() - old.keys():
                del now[name]
        for name, value in old.items():
            if now.get(name, MISSING) is not value and name != "training":
                now[name] = value
    for now, old_flag, put in flags:
        if now.get("training", MISSING) is put:
            now["training"] = old_flag


def holds_graph(value: Any) -> bool:
    """Whether an object or a function holds, at first sight, a tensor that was computed with gradients."""
    cells = [cell.cell_contents for cell in getattr(value, "__closure__", None) or () if not unassigned(cell)]
    items = (*getattr(value, "__dict__", {}).values(), *cells, *(value if isinstance(value, tuple) else ()))
    return any(isinstance(item, Tensor) and item.grad_fn is not None for item in items)


def unassigned(cell: Any) -> bool:
    """Whether a variable of an enclosing function has no value yet."""
    try:
        return cell.cell_contents is None
    except ValueError:
        return True


def is_generator(value: Any) -> bool:
    """Whether it is a random number generator of torch, Python or NumPy."""
    if isinstance(value, (torch.Generator, random.Random)):
        return True
    numpy: Any = sys.modules.get("numpy.random")
    return numpy is not None and isinstance(value, (numpy.Generator, numpy.RandomState))


def same_state(a: Any, b: Any) -> bool:
    """Whether two generators of one kind will draw the same."""
    if isinstance(a, torch.Generator):
        return torch.equal(a.get_state(), b.get_state())
    if isinstance(a, random.Random):
        return a.getstate() == b.getstate()
    return repr(a.__getstate__()) == repr(b.__getstate__())


def duplicate(generator: Any) -> Any:
    """A generator in the same state."""
    return generator.clone_state() if isinstance(generator, torch.Generator) else copy.deepcopy(generator)


def refuse_generators(who: str, context: dict[str, Any]) -> None:
    """Raise TypeError for a random number generator in the context, whose state nobody would put back."""
    names = [name for name, value in context.items() if is_generator(value)]
    if names:
        raise TypeError(
            f"{who}: a random number generator cannot be context, got {names}. Make it an attribute of the module that "
            "draws from it, or use torch's global random numbers."
        )
