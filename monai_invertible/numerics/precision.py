"""Number formats in which a network can be computed, to see how its inverse bears them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

__all__ = ["PRECISIONS", "in_precision"]

PRECISIONS = ("float64", "float32", "tf32", "bfloat16 autocast", "bfloat16")
_aten = torch.ops.aten
FACTORS = {  # which arguments are multiplied
    _aten.convolution.default: slice(2),
    _aten.convolution_backward.default: slice(3),
    _aten.mm.default: slice(2),
    _aten.bmm.default: slice(2),
    _aten.addmm.default: slice(1, 3),
    _aten.baddbmm.default: slice(1, 3),
}


@contextmanager
def in_precision(network: nn.Module, precision: str | None) -> Iterator[None]:
    """Cast a network, in place and for good, and let it compute in a number format within the ``with`` block.

    Tensors that the network is called with are cast to the type of its parameters.

    Args:
        network: any; its parameters and buffers are cast.
        precision: "float64"; "float32"; "tf32", as tensor cores do, here in software: float32, but the factors of
            convolutions and matrix products are rounded to 10 bits of mantissa; "bfloat16 autocast": float32 under
            ``torch.autocast``; "bfloat16": parameters, statistics and states, too. None: as the network is.

    Raises:
        ValueError: a precision of another name.
    """
    if precision is None:
        yield
        return
    if precision not in PRECISIONS:
        raise ValueError(
            f"in_precision: precision must be one of {PRECISIONS}, got {precision!r}. Choose one of these."
        )
    dtype = {"float64": torch.float64, "bfloat16": torch.bfloat16}.get(precision, torch.float32)
    network.to(dtype)

    def cast(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, (args, kwargs))

    device = next((p.device.type for p in network.parameters()), "cpu")
    autocast = torch.autocast(device, torch.bfloat16) if precision.endswith("autocast") else nullcontext()
    handle = network.register_forward_pre_hook(cast, with_kwargs=True)
    try:
        with autocast, RoundedFactors() if precision == "tf32" else nullcontext():
            yield
    finally:
        handle.remove()


class RoundedFactors(TorchDispatchMode):
    """Products of float32 tensors as tensor cores compute them: factors of 10 bits of mantissa, sums of 23."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in FACTORS:
            factors = range(len(args))[FACTORS[func]]
            args = tuple(round_mantissa(a) if i in factors else a for i, a in enumerate(args))
        return func(*args, **(kwargs or {}))


def round_mantissa(x: Any) -> Any:
    """To the nearest float32 number with 10 bits of mantissa; halves away from zero."""
    if not isinstance(x, Tensor) or x.dtype != torch.float32:
        return x
    return ((x.contiguous().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)
