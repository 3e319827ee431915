"""How far a set of generated images is from a set of real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.metrics.metric import CumulativeIterationMetric
from monai.metrics.mmd import compute_mmd

__all__ = ["SampleDistance"]


class SampleDistance(CumulativeIterationMetric):
    r"""MONAI's maximum mean discrepancy of all images of an evaluation, per voxel.

    ``MMDMetric`` wants both sets at once; here they come in batches, from all processes. Its kernel is linear: an
    unbiased estimate of :math:`\|E f(y) - E f(x)\|^2` divided by the size of :math:`f(x)`, which may be below 0. With
    the images themselves (f left out) it compares the mean images and nothing else.

    Args:
        mapping: f, from a batch of images to features.

    Raises:
        ValueError: with fewer than two images.
    """

    def __init__(self, mapping: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        super().__init__()
        self.mapping = mapping

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor:
        """What is collected, in main memory: (B, 2, features)."""
        pair: Any = (y, y_pred)  # real, generated
        images = [image if self.mapping is None else self.mapping(image) for image in pair]
        return torch.stack([image.as_subclass(torch.Tensor).flatten(1).float().cpu() for image in images], dim=1)

    def aggregate(self) -> torch.Tensor:
        """The distance."""
        pairs: Any = self.get_buffer()
        if pairs is None or len(pairs) < 2:
            raise ValueError(
                f"SampleDistance: there must be two images or more, got {0 if pairs is None else len(pairs)}. Compare "
                "larger sets."
            )
        return compute_mmd(pairs[:, 0], pairs[:, 1], None) / pairs.shape[2]
