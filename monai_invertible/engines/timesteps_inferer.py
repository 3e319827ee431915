"""A denoiser at several fixed times, to be scored."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers.inferer import DiffusionInferer

__all__ = ["TimestepsInferer"]


class TimestepsInferer(DiffusionInferer):
    r"""MONAI's ``DiffusionInferer``, once for each timestep, the condition concatenated; the predictions are channels.

    They are noise, whatever the network predicts: a velocity v (Salimans and Ho 2022; ``prediction_type`` of the
    scheduler) means the noise :math:`\sqrt{\bar\alpha_t} v + \sqrt{1 - \bar\alpha_t} x_t`, so that networks compare.

    Args:
        scheduler: adds the noise; its ``prediction_type`` is "epsilon" or "v_prediction".

    Raises:
        ValueError: another ``prediction_type``.
    """

    def __init__(self, scheduler: Any) -> None:
        super().__init__(scheduler)
        if scheduler.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(
                'TimestepsInferer: the scheduler must predict "epsilon" or "v_prediction", got '
                f'"{scheduler.prediction_type}". Choose one of these.'
            )

    def __call__(  # type: ignore[override]
        self,
        inputs: torch.Tensor,
        network: Any,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        condition: torch.Tensor,
    ) -> torch.Tensor:
        """Predict.

        Args:
            inputs: images (B, C, \\*spatial).
            network: the denoiser.
            noise: one for each timestep, (B, len(timesteps) * C, \\*spatial).
            timesteps: the same for all images.
            condition: (B, channels, \\*spatial), maybe of 0 channels.

        Returns:
            the shape of ``noise``.
        """
        call = super().__call__
        predictions = []
        for part, step in zip(noise.chunk(len(timesteps), dim=1), timesteps, strict=True):
            steps = step.expand(len(inputs))
            prediction = call(inputs, network, part, steps, condition=condition, mode="concat")
            if self.scheduler.prediction_type == "v_prediction":
                noisy = self.scheduler.add_noise(inputs, part, steps)
                kept = self.scheduler.alphas_cumprod[step]
                prediction = kept.sqrt() * prediction + (1 - kept).sqrt() * noisy
            predictions.append(prediction)
        return torch.cat(predictions, dim=1)
