"""Magnitude images of their central field of view, as fastMRI compares them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["as_magnitude", "central_region"]


def as_magnitude(image: torch.Tensor) -> torch.Tensor:
    """The magnitude of a batch: complex (B, 2, \\*spatial) -> (B, 1, \\*spatial); one channel is a magnitude already.

    Raises:
        ValueError: for any other number of channels.
    """
    if image.ndim < 3 or image.shape[1] not in (1, 2):
        raise ValueError(
            "as_magnitude: an image must be complex (B, 2, *spatial) or a magnitude (B, 1, *spatial), got "
            f"{tuple(image.shape)}. Put the batch first, then the channels."
        )
    return image if image.shape[1] == 1 else torch.linalg.vector_norm(image, dim=1, keepdim=True)


def central_region(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The central (rows, columns) of the last two dimensions, as fastMRI crops; a smaller dimension stays whole."""
    rows, columns = (min(int(n), have) for n, have in zip(size, image.shape[-2:], strict=True))
    top, left = (image.shape[-2] - rows) // 2, (image.shape[-1] - columns) // 2
    return image[..., top : top + rows, left : left + columns]
