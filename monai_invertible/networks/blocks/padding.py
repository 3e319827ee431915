"""Images of any size for networks whose strides divide only some."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["missing_padding"]


def missing_padding(network: nn.Module, x: Tensor, in_channels: int, divisor: Sequence[int]) -> list[int]:
    """What :func:`torch.nn.functional.pad` needs to know, last dimension first; nothing if the image fits.

    Sizes are padded at the end to multiples of ``divisor``.

    Raises:
        ValueError: an empty image, or one of other channels or dimensions.
    """
    size, tracing = x.shape[2:], torch.jit.is_tracing() or torch.compiler.is_exporting()  # type: ignore[attr-defined]
    if not tracing and (len(size) != len(divisor) or x.shape[1] != in_channels or 0 in x.shape):
        raise ValueError(
            f"{type(network).__name__}: an image must have shape (B, {in_channels}, "
            f"{', '.join('DHW'[-len(divisor) :])}), got {tuple(x.shape)}. Check spatial_dims and in_channels."
        )
    whole = [(n + d - 1) // d * d for n, d in zip(size, divisor, strict=True)]  # ONNX floors -(-n // d) wrong
    if not tracing and all(n == d for n, d in zip(whole, divisor, strict=True)):
        whole[-1] *= 2  # a norm over the voxels of the deepest level needs two of them
    missing = [p for n, m in zip(reversed(whole), reversed(size), strict=True) for p in (0, n - m)]
    return missing if tracing or any(missing) else []
