"""The reduction that the losses share."""

from __future__ import annotations

from monai.utils.enums import LossReduction
from torch import Tensor

__all__ = ["reduced"]


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """The mean or the sum of the samples' losses, or ("none") the losses themselves."""
    if reduction == LossReduction.MEAN.value:
        return losses.mean()
    return losses.sum() if reduction == LossReduction.SUM.value else losses
