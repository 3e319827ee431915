"""Everything of torch that has no public name and that the engine asks nevertheless, each with what is done without it.

A torch that lacks one of these costs memory or a refusal, never a wrong result. Whatever differs between the versions
of torch that the package supports is in this file, and ``tests/autograd/test_torch_internals.py`` holds it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

__all__ = [
    "compiles_chains",
    "fake_tensor_mode",
    "graph_is_retained",
    "hint",
    "holders",
    "inside_transform",
    "is_exporting",
    "is_fake",
    "is_shard",
    "is_sharding",
    "local_while_tracing",
    "operation_watcher",
    "outside_transforms",
    "saving_hooks",
    "shards",
    "storage",
    "version",
    "with_parameters",
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


def is_exporting() -> bool:
    """Whether ``torch.export`` is tracing.

    The compiler of torch 2.8 says yes to the public ``torch.compiler.is_exporting`` in ``torch.compile`` as well, and a
    compiled chain would store everything. Without the flag behind it: the public answer.
    """
    flag = getattr(torch.compiler, "_is_exporting_flag", None)
    return torch.compiler.is_exporting() if flag is None else bool(flag)


def is_fake(tensor: Tensor) -> bool:
    """Whether the tensor only describes one: a meta tensor, or one of a ``FakeTensorMode``."""
    return tensor.is_meta or (
        type(tensor) is not Tensor and any(c.__name__ == "FakeTensor" for c in type(tensor).mro())
    )


def compiles_chains() -> bool:
    """Whether this torch's compiler can put a whole chain into its graph.

    Those of torch 2.8 and 2.9 take no module where a function's result is a constant, and change no parameters in a
    backward; 2.10 to 2.12 have not been tried. With them the graph breaks, and a chain runs in the eager engine.
    """
    return torch.torch_version.TorchVersion(torch.__version__) >= "2.13"


def fake_tensor_mode() -> Any:
    """Tensors without data, for a trial run of a chain that computes nothing (``torch._subclasses.FakeTensorMode``).

    A torch without it cannot compile either: ``torch.compile`` is made of it.
    """
    from torch._subclasses import FakeTensorMode

    return FakeTensorMode(allow_non_fake_inputs=True)


def operation_watcher(see: Callable[[Any], None]) -> AbstractContextManager[Any]:
    """``see`` is called with each operation that is executed (``torch.utils._python_dispatch.TorchDispatchMode``).

    A torch without it cannot compile either.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watcher(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            see(func)
            return func(*args, **(kwargs or {}))

    return Watcher()


def local_while_tracing(frame: Any, name: str) -> Any:
    """What a local variable is to the compiler: a constant, or a fake tensor or number with symbols.

    ``frame`` is what ``torch._dynamo.comptime.comptime`` hands to the function that it calls while the compiler traces.

    Raises:
        LookupError: it is neither.
    """
    variable = frame.get_local(name)
    try:
        return variable.as_python_constant() if variable.is_python_constant() else variable.as_fake()
    except (AttributeError, KeyError, NotImplementedError) as error:
        raise LookupError(f"'{name}' is neither a constant nor a tensor") from error


def hint(number: int | torch.SymInt) -> int | None:
    """The number with which a symbolic size is being traced (``SymInt.node.hint``); None where the compiler has none.

    Where a torch lacks it, it is None: a chain whose sizes are symbols then runs in the eager engine.
    """
    return number if isinstance(number, int) else getattr(number.node, "hint", None)


def with_parameters(module: nn.Module, parameters: dict[str, Tensor]) -> AbstractContextManager[Any]:
    """The module with other parameters, inside of a traced function (``nn.utils.stateless._reparametrize_module``).

    The public ``torch.func.functional_call`` calls the module's ``forward`` only, and a module around it, whose forward
    is another function, cannot be made while the compiler traces. Each place that holds a parameter is named once:
    ``tie_weights=True`` would name it twice where a layer is held twice, and not give its parameter back.
    All versions from 2.8 on have it.
    """
    given = {id(p): parameters[name] for name, p in module.named_parameters()}
    places = {
        f"{path}.{name}" if path else name: given[id(p)]
        for path, m in module.named_modules()
        for name, p in m._parameters.items()
        if p is not None
    }
    return _reparametrize_module(module, places)


def is_sharding(module: nn.Module) -> bool:
    """Whether the module's parameters are shared out among processes by ``torch.distributed.fsdp.fully_shard``."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return fsdp is not None and isinstance(module, fsdp.FSDPModule)


def is_shard(parameter: Tensor) -> bool:
    """Whether the parameter is this process's part of one."""
    distributed = sys.modules.get("torch.distributed.tensor")
    return distributed is not None and isinstance(parameter, distributed.DTensor)


def shards(hook: Any) -> bool:
    """Whether a hook of a module is one by which ``fully_shard`` gathers parameters.

    They know by themselves of recomputations. That they are defined there is no promise of torch; a hook that is not
    recognised is silenced in a recomputation, and the shards are refused by torch.
    """
    return getattr(hook, "__module__", "").startswith("torch.distributed.fsdp.")


def writes_in_eval(module: nn.Module) -> bool:
    """Whether evaluation may count as a change of the module's buffers, which stay as they are.

    In torch 2.8 instance norm with running statistics writes them back. Such buffers are kept by value, as in training.
    """
    return isinstance(module, nn.modules.instancenorm._InstanceNorm) and module.track_running_stats
