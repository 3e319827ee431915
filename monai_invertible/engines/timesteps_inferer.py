"""A denoiser at several fixed times, to be scored."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers.inferer import DiffusionInferer

__all__ = ["TimestepsInferer"]


class TimestepsInferer(DiffusionInferer):
    """MONAI's ``DiffusionInferer``, once for each timestep, the condition concatenated; the predictions are channels.

    Args:
        scheduler: adds the noise.
    """

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
        predictions = [
            call(inputs, network, part, step.expand(len(inputs)), condition=condition, mode="concat")
            for part, step in zip(noise.chunk(len(timesteps), dim=1), timesteps, strict=True)
        ]
        return torch.cat(predictions, dim=1)
