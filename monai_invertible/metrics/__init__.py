"""Scores of reconstructions."""

from __future__ import annotations

from monai_invertible.metrics.central_region import central_region
from monai_invertible.metrics.fastmri_metric import FastMRIMetric, volume_key

__all__ = ["FastMRIMetric", "central_region", "volume_key"]
