"""Loss functions that MONAI does not have."""

from __future__ import annotations

from .subsampled_nmse_loss import SubsampledNMSELoss

__all__ = ["SubsampledNMSELoss"]
