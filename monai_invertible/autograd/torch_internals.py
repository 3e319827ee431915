"""Names of torch that are not public, in one place: for each, what it is for, and what is done where a torch lacks it.

What takes long to load is loaded by the function that needs it. The rest of the package uses public names.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

__all__ = ["fake_tensor_mode", "hint", "local_while_tracing", "operation_watcher", "with_parameters"]


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
