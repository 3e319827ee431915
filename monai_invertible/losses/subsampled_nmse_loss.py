"""Normalised mean squared error on a random subset of the pixels: a regulariser that adds noise to the gradient.

Putzky and Welling, "Invert to Learn to Invert", NeurIPS 2019, equation 18.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.utils.enums import LossReduction

from monai_invertible.losses.reduced import reduced
from monai_invertible.operators import magnitude

__all__ = ["SubsampledNMSELoss"]


class SubsampledNMSELoss(torch.nn.modules.loss._Loss):
    """L = |m * (prediction - target)|^2 / |m * target|^2 with m ~ Bernoulli(ratio) per pixel (voxel), per sample.

    m is shared by the channels (real and imaginary part), by prediction and target, and by all time steps; it is drawn
    anew in every call from PyTorch's generator on the target's device, so ``torch.manual_seed`` repeats it.
    ``ratio=1`` is the plain NMSE. The sums run in float32 at least.

    A sample whose target is zero under its m, or whose m is empty, has no defined NMSE: it contributes a loss of 0 and
    no gradient, and is still counted in the mean. With few pixels, or mostly zero targets, the denominator of equation
    18 varies a lot from draw to draw: use a larger ratio or ``denominator="full"``.

    The authors' published code computes something else than equation 18: magnitude images, and the mean squared error
    under m over the mean square of the whole target. This is ``magnitude=True, denominator="full"``.

    Args:
        ratio: expected fraction of pixels, in (0, 1].
        magnitude: compare magnitude images; an image with one channel is taken as a magnitude already.
        denominator: "masked" is |m * target|^2; "full" is |target|^2 times the fraction of pixels in m.
        reduction: "mean" or "sum" over the samples, or "none".

    Shapes:
        prediction: (B, C, \\*spatial), or a list or tuple of T of them, one per time step, over which the loss is
        averaged, as the paper does for its RIM. target: (B, C, \\*spatial), in the same unit. Loss: scalar, or (B,)
        without reduction; it has no unit.

    Raises:
        ValueError: a ratio outside of (0, 1], an unknown denominator, or a prediction of another shape than the target.
    """

    def __init__(
        self,
        ratio: float = 0.01,
        *,
        magnitude: bool = False,
        denominator: str = "masked",
        reduction: LossReduction | str = LossReduction.MEAN,
    ) -> None:
        super().__init__(reduction=LossReduction(reduction).value)
        if not 0 < ratio <= 1:
            raise ValueError(f"SubsampledNMSELoss: ratio must be in (0, 1], got {ratio}. Use 1 for all pixels.")
        if denominator not in ("masked", "full"):
            raise ValueError(
                f"SubsampledNMSELoss: denominator must be 'masked' or 'full', got {denominator!r}. "
                "Use 'masked' for equation 18."
            )
        self.ratio = ratio
        self.magnitude = magnitude
        self.denominator = denominator

    def forward(self, prediction: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:
        """The loss."""
        target = self._image(target)
        mask = torch.rand(target.shape[0], 1, *target.shape[2:], device=target.device) < self.ratio
        energy = _sum(target**2 * mask)
        if self.denominator == "full":
            energy = _sum(target**2) * mask.flatten(1).to(target.dtype).mean(1)
        defined = energy > 0

        estimates = [prediction] if isinstance(prediction, torch.Tensor) else prediction
        losses = []
        for estimate in estimates:
            estimate = self._image(estimate)
            if estimate.shape != target.shape:
                raise ValueError(
                    f"SubsampledNMSELoss: prediction and target must have the same shape, got {tuple(estimate.shape)} "
                    f"and {tuple(target.shape)}. Use magnitude=True to compare a complex with a magnitude image."
                )
            error = _sum((estimate - target) ** 2 * mask)
            losses.append(torch.where(defined, error / torch.where(defined, energy, 1), 0))
        return reduced(torch.stack(losses).mean(0), self.reduction)

    def _image(self, image: torch.Tensor) -> torch.Tensor:
        if image.dtype in (torch.float16, torch.bfloat16):
            image = image.float()
        return magnitude(image) if self.magnitude else image


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.flatten(1).sum(1)
