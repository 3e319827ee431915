"""What MONAI's trainers and evaluators need in addition."""

from __future__ import annotations

from monai_invertible.engines.diffusion_sampler import DiffusionSampler
from monai_invertible.engines.linear_decay import linear_decay
from monai_invertible.engines.prepare_batch import PrepareBatchKspace
from monai_invertible.engines.prepare_noise import PrepareBatchNoise
from monai_invertible.engines.prepare_translation import PrepareBatchTranslation
from monai_invertible.engines.show_cause_last import show_cause_last
from monai_invertible.engines.timesteps_inferer import TimestepsInferer
from monai_invertible.engines.translation_trainer import TranslationTrainer

__all__ = [
    "DiffusionSampler",
    "PrepareBatchKspace",
    "PrepareBatchNoise",
    "PrepareBatchTranslation",
    "TimestepsInferer",
    "TranslationTrainer",
    "linear_decay",
    "show_cause_last",
]
