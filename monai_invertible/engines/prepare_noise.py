"""Noise for the evaluation of a diffusion model: the same for a subject whenever it is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from monai.engines.utils import PrepareBatch

__all__ = ["PrepareBatchNoise"]


class PrepareBatchNoise(PrepareBatch):
    """Give MONAI's evaluators what they need to score a denoiser, or to draw from it. (For training there is MONAI's
    ``DiffusionPrepareBatch``.)

    The noise of an item depends on ``seed`` and its "subject" only, and not on its neighbours in the batch: scores of
    two epochs, or of two networks, compare.

    - With ``timesteps``: ``(image, noises, (), {"noise": noises, "timesteps": timesteps, "condition": condition})`` for
      ``TimestepsInferer``. The noises, one for each timestep, are channels: (B, len(timesteps) * C, \\*spatial).
    - Without: ``(noise, image, (), {"condition": condition})`` for ``DiffusionSampler``: the image is the truth, None
      if the batch has none.

    Args:
        timesteps: the steps to score, or None to draw.
        seed: each gives other noise.
        image_key: the image (B, C, \\*spatial).
        condition_key: what is concatenated to the noisy image, (B, channels, \\*spatial); there may be 0 channels.
        name_key: what names an item.

    Raises:
        ValueError: the batch has no image to be scored.
    """

    def __init__(
        self,
        timesteps: Sequence[int] | None = None,
        seed: int = 0,
        image_key: str = "image",
        condition_key: str = "condition",
        name_key: str = "subject",
    ) -> None:
        self.timesteps = None if timesteps is None else torch.as_tensor(list(timesteps))
        self.seed = seed
        self.image_key = image_key
        self.condition_key = condition_key
        self.name_key = name_key

    def noise(self, name: str, shape: Sequence[int]) -> torch.Tensor:
        """Of one item."""
        key = hashlib.sha256(f"{self.seed} {name}".encode()).digest()[:6]
        return torch.randn(*shape, generator=torch.Generator().manual_seed(int.from_bytes(key, "big")))

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, Any, tuple, dict[str, torch.Tensor]]:
        """Move the tensors to ``device``; ``kwargs`` are those of ``torch.Tensor.to``."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device=device, non_blocking=non_blocking, **kwargs)

        condition = move(batchdata[self.condition_key])
        image: Any = move(batchdata[self.image_key]) if self.image_key in batchdata else None
        if image is None and self.timesteps is not None:
            raise ValueError(
                f'PrepareBatchNoise: the batch must have "{self.image_key}" to be scored, got {sorted(batchdata)}. '
                "Set image_key, or timesteps=None to draw."
            )
        channels = 1 if image is None else image.shape[1]
        shape = (channels * (1 if self.timesteps is None else len(self.timesteps)), *condition.shape[2:])
        noise = move(torch.stack([self.noise(name, shape) for name in batchdata[self.name_key]]))
        if self.timesteps is None:
            return noise, image, (), {"condition": condition}
        return image, noise, (), {"noise": noise, "timesteps": self.timesteps.to(device), "condition": condition}
