"""The memory under tensors: whose it is, in which order it is laid out, and how to lay it out so again.

The order matters beyond speed: a dropout's mask, and what a compiled kernel expects, follow the strides, even those of
dimensions of size one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from monai_invertible.autograd.torch_internals import holders, is_fake

__all__ = ["dense", "own_memory", "unshared", "with_strides"]


def dense(tensor: Tensor) -> bool:
    """Whether the tensor has no gaps in memory, whatever the order of its dimensions."""
    if tensor.layout is not torch.strided or tensor.is_contiguous():
        return True
    return tensor.permute(sorted(range(tensor.ndim), key=tensor.stride, reverse=True)).is_contiguous()


def own_memory(tensor: Tensor) -> Tensor:
    """A copy of a part of a larger tensor, so that that need not live on; any other tensor as it is.

    The copy has the order of dimensions of the original, without its gaps.
    """
    if tensor.layout is not torch.strided:
        return tensor
    if torch.compiler.is_compiling():
        return tensor if dense(tensor) else tensor.clone()
    try:
        memory = tensor.untyped_storage().nbytes()
    except NotImplementedError:  # a batch of gradients, in a vectorised Jacobian, has no memory of its own
        return tensor
    whole = memory <= tensor.numel() * tensor.element_size()
    return tensor if whole and dense(tensor) else tensor.clone()


def unshared(tensor: Tensor) -> bool:
    """Whether nobody else holds the tensor's memory, and no two of its elements are one: it may be overwritten."""
    ordinary = type(tensor) is Tensor or is_fake(tensor)
    if not ordinary or tensor.layout is not torch.strided or not dense(tensor):
        return False
    memory = tensor.untyped_storage()
    return holders(memory) == 2  # the tensor and ``memory``


def with_strides(tensor: Tensor, strides: Sequence[int]) -> Tensor:
    """The tensor laid out in memory by these strides, a copy only where it must be one."""
    strides = tuple(strides)
    if tensor.layout is not torch.strided or tensor.stride() == strides or len(strides) != tensor.ndim:
        return tensor
    repeated = [n > 1 and step == 0 for n, step in zip(tensor.shape, strides, strict=True)]
    if any(repeated):  # an expanded tensor: what repeats is one and the same memory
        first = tensor[tuple(slice(1) if again else slice(None) for again in repeated)]
        return with_strides(first, strides).expand(tensor.shape)
    if all(n <= 1 or a == b for n, a, b in zip(tensor.shape, tensor.stride(), strides, strict=True)):
        return tensor.as_strided(tensor.shape, strides)
    if overlapping(tensor.shape, strides):
        return tensor
    return tensor.new_empty_strided(tensor.shape, strides).copy_(tensor)


def overlapping(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether two elements may be one, as in a sliding window."""
    reach = 0
    for step, n in sorted((s, n) for n, s in zip(shape, strides, strict=True) if n > 1):
        if step <= reach:
            return True
        reach += step * (n - 1)
    return False
