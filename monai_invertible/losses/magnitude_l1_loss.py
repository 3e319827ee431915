"""The loss of fastMRI's U-Net baseline: mean absolute error of magnitude images, free of the scanner's scale.

Zbontar et al., fastMRI: An Open Dataset and Benchmarks for Accelerated MRI, 2018, arXiv 1811.08839, section 6.
"""

from __future__ import annotations

import torch
from monai.utils.enums import LossReduction
from torch.nn.modules.loss import _Loss

from monai_invertible.losses.reduced import reduced
from monai_invertible.operators import magnitude

__all__ = ["MagnitudeL1Loss"]


class MagnitudeL1Loss(_Loss):
    r"""``mean(| |x^| - |x| |) / std(|x|)`` of each sample; the division makes it the error of fastMRI's normalised
    images (which divide by the standard deviation of the input; here that of the target).

    Args:
        reduction: "mean" or "sum" over the samples, or "none".

    Shapes: prediction and target ``(B, 2, *spatial)`` complex or ``(B, 1, *spatial)`` magnitude, each, in the same
    unit. Loss: scalar, or ``(B,)`` without reduction; it has no unit.

    Raises:
        ValueError: prediction and target of different sizes.
    """

    def __init__(self, reduction: LossReduction | str = LossReduction.MEAN) -> None:
        super().__init__(reduction=LossReduction(reduction).value)

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The loss."""
        prediction, target = magnitude(prediction), magnitude(target)
        if prediction.shape != target.shape:
            raise ValueError(
                f"MagnitudeL1Loss: prediction and target must have one shape, got {tuple(prediction.shape)} and "
                f"{tuple(target.shape)}. Crop or pad one of them."
            )
        error = (prediction - target).abs().flatten(1).mean(1)
        losses = error / target.flatten(1).std(1).clamp_min(torch.finfo(error.dtype).tiny)
        return reduced(losses, self.reduction)
