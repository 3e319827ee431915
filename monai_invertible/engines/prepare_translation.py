"""From a batch of two domains to what an engine hands to a pair of generators."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines.utils import PrepareBatch
from torch import Tensor

__all__ = ["PrepareBatchTranslation"]


class PrepareBatchTranslation(PrepareBatch):
    """Give a trainer ``(x, y)``, or MONAI's evaluators what they need to call the pair in one direction.

    With a direction, ``SupervisedEvaluator`` calls ``pair(x, direction="forward")`` and compares with y, or
    ``pair(y, direction="inverse")`` and compares with x; if the batch lacks what is compared with, it is None.

    Args:
        x_key: images of X in the batch.
        y_key: images of Y.
        direction: None for a :class:`TranslationTrainer`, "forward" or "inverse" for an evaluator.

    Raises:
        ValueError: an unknown direction, or a batch without the images.
    """

    def __init__(self, x_key: str = "x", y_key: str = "y", direction: str | None = None) -> None:
        if direction not in (None, "forward", "inverse"):
            raise ValueError(
                f'PrepareBatchTranslation: direction must be "forward" or "inverse", got {direction!r}. Choose one, or '
                "None for a trainer."
            )
        self.keys = (y_key, x_key) if direction == "inverse" else (x_key, y_key)
        self.direction = direction

    def __call__(
        self,
        batchdata: dict[str, Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple:
        """Move the tensors to ``device``; ``kwargs`` are those of ``torch.Tensor.to``."""
        for key in self.keys if self.direction is None else self.keys[:1]:
            if key not in batchdata:
                raise ValueError(
                    f'PrepareBatchTranslation: the batch must have "{key}", got {sorted(map(str, batchdata))}. Set '
                    "x_key and y_key to the keys of the images."
                )
        inputs, targets = (
            batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs) if key in batchdata else None
            for key in self.keys
        )
        if self.direction is None:
            return inputs, targets
        return inputs, targets, (), {"direction": self.direction}
