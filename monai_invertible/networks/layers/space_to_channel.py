"""The squeeze: blocks of neighbouring positions become channels. Dinh et al., Real NVP, 2017, section 3.6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from monai_invertible.autograd.module import InvertibleModule, State

__all__ = ["SpaceToChannel", "check_stride"]


class SpaceToChannel(InvertibleModule):
    r"""Downsample without parameters and without loss.

    ``forward``: :math:`(\dots, x) \mapsto (\dots, y)` with
    :math:`y_{c m + k}[i] = x_c[i \odot s + o_k]`, where :math:`o_1, \dots, o_m` are the :math:`m = \prod s` offsets in
    a block of the stride :math:`s`. ``inverse``: the same, read from right to left (pixel shuffle).

    Saves nothing, recomputes nothing, exact.

    Args:
        stride: s, one number per spatial dimension; 1 leaves a dimension as it is.

    Shapes: ``(B, C, *spatial)`` to ``(B, C m, *spatial / s)``; of a state of several tensors the last.

    Raises:
        ValueError: a size that the stride does not divide, or channels (of the inverse) that m does not divide.
    """

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self.stride = tuple(stride)

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Blocks to channels."""
        *rest, x = state
        check_stride(self, x, self.stride)
        for dim, step in enumerate(self.stride):  # (B, C, n1 / s1, s1, n2 / s2, s2, ...)
            x = x.unflatten(2 + 2 * dim, (-1, step))
        count = len(self.stride)
        x = x.permute(0, 1, *range(3, 3 + 2 * count, 2), *range(2, 2 + 2 * count, 2)).flatten(1, 1 + count)
        return (*rest, x) if rest else x

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """Channels to blocks."""
        *rest, y = state
        count, cells = len(self.stride), torch.Size(self.stride).numel()
        if y.shape[1] % cells:
            raise ValueError(
                f"SpaceToChannel: the inverse of stride {self.stride} needs a multiple of {cells} channels, got "
                f"{y.shape[1]}. Give it what forward returns."
            )
        y = y.unflatten(1, (-1, *self.stride))  # (B, C, s1, s2, ..., n1, n2, ...)
        y = y.permute(0, 1, *(axis for dim in range(count) for axis in (2 + count + dim, 2 + dim)))
        for dim in range(count):
            y = y.flatten(2 + dim, 3 + dim)
        return (*rest, y) if rest else y

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


def check_stride(module: torch.nn.Module, x: Tensor, stride: tuple[int, ...]) -> None:
    """Raise ValueError if the spatial sizes of ``x`` are not multiples of ``stride``."""
    if torch.jit.is_tracing() or torch.compiler.is_exporting():  # type: ignore[attr-defined]  # torch.jit has no __all__
        return
    if x.ndim != 2 + len(stride) or any(n % s for n, s in zip(x.shape[2:], stride, strict=True)):
        raise ValueError(
            f"{type(module).__name__}: every spatial size must be a multiple of the stride {stride}, got "
            f"{tuple(x.shape[2:])}. Pad the image, for example with monai.transforms.DivisiblePad."
        )
