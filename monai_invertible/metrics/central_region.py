"""The central field of view, in which fastMRI compares images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["central_region"]


def central_region(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The central (rows, columns) of the last two dimensions, as fastMRI crops; a smaller dimension stays whole."""
    rows, columns = (min(int(n), have) for n, have in zip(size, image.shape[-2:], strict=True))
    top, left = (image.shape[-2] - rows) // 2, (image.shape[-1] - columns) // 2
    return image[..., top : top + rows, left : left + columns]
