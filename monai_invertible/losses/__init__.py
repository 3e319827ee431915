"""Loss functions that MONAI does not have."""

from __future__ import annotations

from monai_invertible.losses.magnitude_l1_loss import MagnitudeL1Loss
from monai_invertible.losses.subsampled_nmse_loss import SubsampledNMSELoss
from monai_invertible.losses.vae_regularized_loss import VAERegularizedLoss

__all__ = ["MagnitudeL1Loss", "SubsampledNMSELoss", "VAERegularizedLoss"]
