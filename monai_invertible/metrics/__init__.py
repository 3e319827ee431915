"""Scores of reconstructions and segmentations."""

from __future__ import annotations

from monai_invertible.metrics.central_region import central_region
from monai_invertible.metrics.fastmri_metric import FastMRIMetric
from monai_invertible.metrics.segmentation_metric import SegmentationMetric, region_masks
from monai_invertible.metrics.volume_key import volume_key

__all__ = ["FastMRIMetric", "SegmentationMetric", "central_region", "region_masks", "volume_key"]
