"""Loss functions that MONAI does not have."""

from __future__ import annotations

from .magnitude_l1_loss import MagnitudeL1Loss
from .subsampled_nmse_loss import SubsampledNMSELoss

__all__ = ["MagnitudeL1Loss", "SubsampledNMSELoss"]
