"""Scores of reconstructions."""

from __future__ import annotations

from monai_invertible.metrics.as_magnitude import as_magnitude, central_region
from monai_invertible.metrics.fastmri_metric import FastMRIMetric

__all__ = ["FastMRIMetric", "as_magnitude", "central_region"]
