"""Whether a chain repeats itself inside a compiled graph, decided while the compiler traces it.

A trial run on fake tensors, which computes nothing, tells what a chain does: whether it draws random numbers, writes to
its parameters and buffers, or sets attributes of its modules. The trial needs sizes that are numbers, while to the
compiler they may be symbols that stand for any batch size. Behind a symbol is the size that is being traced with, its
hint: :func:`look_at` notes it, and the trial takes the way through the chain that the trace takes. What that way
depends on, flags and sizes, the trace guards by itself, so that another way means another trace, and another trial.
"""

from __future__ import annotations

import random
import sys
import threading
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_invertible.autograd.module import Composition, Step, observed, run_steps
from monai_invertible.autograd.torch_internals import fake_tensor_mode, hint, local_while_tracing, operation_watcher

__all__ = ["note", "repeatable"]

_noted = threading.local()  # by name: what was noted in this thread, until the decision is made


class Described(NamedTuple):
    """A tensor, as far as the trial needs to know it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def note(name: str, value: Any) -> None:
    """Note, while the compiler traces, what it knows of an input of the chain."""
    from torch._dynamo.comptime import comptime

    comptime(_note)


def _note(frame: Any) -> None:
    name = local_while_tracing(frame, "name")
    vars(_noted).pop(name, None)  # as of an earlier trace
    try:
        value = local_while_tracing(frame, "value")
    except LookupError:
        return
    known = True
    if isinstance(value, Tensor):
        shape = [n for n in map(hint, value.shape) if n is not None]
        known = len(shape) == value.ndim
        value = Described(tuple(shape), value.dtype, value.device)
    elif isinstance(value, torch.SymInt):
        value = hint(value)
        known = value is not None
    if known:
        vars(_noted)[name] = value


@torch.compiler.assume_constant_result
def repeatable(chain: Composition, inverse: bool, flags: tuple[bool, ...], n: int, names: tuple[str, ...]) -> bool:
    """Whether the chain can be evaluated several times as if it were once.

    Args:
        chain: whose steps are tried.
        inverse: in the other direction.
        flags: the modules' training flags; an argument, so that the compiler asks again when they change.
        n: tensors of the state, noted as "0", "1", ...
        names: of the context, noted under the same names after a dot.
    """
    noted = vars(_noted)
    inputs = [f"{i}" for i in range(n)]
    if not noted.keys() >= {*inputs, *(f".{name}" for name in names)}:
        return False  # nothing to try with
    state, context = [noted[name] for name in inputs], {name: noted[f".{name}"] for name in names}
    steps = list(chain.steps(inverse))
    layers = [m for m in chain.modules() if m is not chain]
    if any(observed(m) for m in layers):
        return False  # its hooks would fire at each evaluation
    if any(m.training and any(b is not None for b in m._buffers.values()) for m in layers):
        return False  # some operations write to buffers unseen
    if any(isinstance(m, Composition) for step in steps for m in step.module.modules()):
        return False  # a chain inside a branch would put its Function inside torch.func.vjp
    if any(type(step).keep is not Step.keep for step in steps):
        return False  # its inverse needs more than the output
    return _Trial(chain, inverse).leaves_no_trace(state, context)


class _Trial:
    """One run of the chain's steps with fake parameters, buffers and inputs."""

    def __init__(self, chain: Composition, inverse: bool) -> None:
        self.chain = chain
        self.inverse = inverse
        self.drawn = False

    def see(self, operation: Any) -> None:
        self.drawn = self.drawn or torch.Tag.nondeterministic_seeded in operation.tags

    def leaves_no_trace(self, state: list[Any], context: dict[str, Any]) -> bool:
        """Whether the steps draw no random numbers, and leave parameters, buffers and attributes as they are."""
        mode = fake_tensor_mode()
        before = [_Attributes(m) for m in self.chain.modules()]
        slots: list[tuple[dict[str, Any], str, Tensor]] = [
            (held, name, mode.from_tensor(tensor))  # the same one for a tensor that is shared
            for m in self.chain.modules()
            for held in (vars(m)["_parameters"], vars(m)["_buffers"])
            for name, tensor in held.items()
            if tensor is not None
        ]
        versions = [fake._version for _, _, fake in slots]
        streams = _OtherRandomNumbers()
        real = [held[name] for held, name, _ in slots]
        try:
            for held, name, fake in slots:
                held[name] = fake
            with mode, torch.no_grad(), operation_watcher(self.see):
                inputs, named = tuple(_made(t) for t in state), {k: _made(v) for k, v in context.items()}
                run_steps(self.chain.steps(self.inverse), inputs, named)
            written = any(
                held.get(name) is not fake or fake._version != v
                for (held, name, fake), v in zip(slots, versions, strict=True)
            )
        finally:
            drawn = streams.restore()
            for (held, name, _), tensor in zip(slots, real, strict=True):
                held[name] = tensor
            changed = [attributes.restore() for attributes in before]
        return not (self.drawn or drawn or written or any(changed))


def _made(described: Any) -> Any:
    if not isinstance(described, Described):
        return described
    return torch.empty(described.shape, dtype=described.dtype, device=described.device)


class _Attributes:
    """What a module holds, and what its lists and dictionaries hold."""

    def __init__(self, module: nn.Module) -> None:
        self.all = vars(module)
        self.before = dict(self.all)
        self.held = [(v, v.copy()) for v in self.before.values() if type(v) in (list, dict, set)]

    def restore(self) -> bool:
        """Put back what was there; whether something else had taken its place."""
        changed = _ids(self.all) != _ids(self.before) or any(_ids(now) != _ids(before) for now, before in self.held)
        if changed:
            for now, before in ((self.all, self.before), *self.held):
                now.clear()
                now.extend(before) if isinstance(now, list) else now.update(before)
        return changed


def _ids(items: Any) -> list[Any]:
    return [(k, id(v)) for k, v in items.items()] if isinstance(items, dict) else [id(v) for v in items]


class _OtherRandomNumbers:
    """The random streams that are not torch's."""

    def __init__(self) -> None:
        self.numpy = sys.modules.get("numpy.random")
        self.python = random.getstate()
        self.of_numpy = None if self.numpy is None else self.numpy.get_state(legacy=False)

    def restore(self) -> bool:
        """Put the streams back; whether something was drawn from them."""
        now = _OtherRandomNumbers()
        random.setstate(self.python)
        if self.numpy is not None:
            self.numpy.set_state(self.of_numpy)
        return repr((self.python, self.of_numpy)) != repr((now.python, now.of_numpy))
