"""Scores of reconstructions."""

from __future__ import annotations

from monai_invertible.metrics.fastmri_metric import FastMRIMetric
from monai_invertible.metrics.magnitude import central_region, magnitude

__all__ = ["FastMRIMetric", "central_region", "magnitude"]
