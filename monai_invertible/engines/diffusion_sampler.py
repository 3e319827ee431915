"""Samples of a diffusion model, as an inferer for MONAI's evaluators."""

from __future__ import annotations

from typing import Any

import torch
from monai.inferers.inferer import DiffusionInferer, Inferer
from monai.networks.schedulers.ddpm import DDPMScheduler

__all__ = ["DiffusionSampler"]


class DiffusionSampler(Inferer):
    """Turn noise into images: ``DiffusionInferer.sample`` with a concatenated condition.

    Args:
        scheduler: DDPM or DDIM, with the noise schedule of the training.
        steps: how many; None for those of the training. MONAI's DDPM knows no other number.
        verbose: show a bar for every batch.

    Raises:
        ValueError: DDPM with fewer steps, which gives wrong images without a word; no step.
    """

    def __init__(self, scheduler: Any, steps: int | None = None, verbose: bool = False) -> None:
        trained = scheduler.num_train_timesteps
        steps = trained if steps is None else steps
        if isinstance(scheduler, DDPMScheduler) and steps != trained:
            raise ValueError(
                f"DiffusionSampler: DDPM takes the {trained} steps of the training, got steps={steps}. Use DDIM for "
                "fewer."
            )
        if steps < 1:
            raise ValueError(f"DiffusionSampler: steps must be at least 1, got {steps}. Use for example 50.")
        self.inferer = DiffusionInferer(scheduler)
        self.scheduler = scheduler
        self.steps = steps
        self.verbose = verbose

    def __call__(self, inputs: torch.Tensor, network: Any, condition: torch.Tensor) -> Any:
        """Draw.

        Args:
            inputs: noise (B, C, \\*spatial).
            network: the denoiser.
            condition: (B, channels, \\*spatial), maybe of 0 channels.
        """
        self.scheduler.set_timesteps(self.steps)
        return self.inferer.sample(inputs, network, conditioning=condition, mode="concat", verbose=self.verbose)
