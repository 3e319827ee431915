"""Loss functions that MONAI does not have."""

from __future__ import annotations

from monai_invertible.losses.magnitude_l1_loss import MagnitudeL1Loss
from monai_invertible.losses.paired_translation_loss import PairedTranslationLoss
from monai_invertible.losses.patch_logits_loss import PatchLogitsLoss
from monai_invertible.losses.subsampled_nmse_loss import SubsampledNMSELoss
from monai_invertible.losses.translation_loss import TranslationLoss
from monai_invertible.losses.unpaired_translation_loss import UnpairedTranslationLoss
from monai_invertible.losses.vae_regularized_loss import VAERegularizedLoss

__all__ = [
    "MagnitudeL1Loss",
    "PairedTranslationLoss",
    "PatchLogitsLoss",
    "SubsampledNMSELoss",
    "TranslationLoss",
    "UnpairedTranslationLoss",
    "VAERegularizedLoss",
]
