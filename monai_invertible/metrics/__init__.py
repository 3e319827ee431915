"""Scores of reconstructions, segmentations, classes, diffusion tensors, translated pictures and generated volumes."""

from __future__ import annotations

from monai_invertible.metrics.central_region import central_region
from monai_invertible.metrics.class_confusion import ClassConfusion
from monai_invertible.metrics.fastmri_metric import FastMRIMetric
from monai_invertible.metrics.image_quality_metric import ImageQualityMetric, grey_levels
from monai_invertible.metrics.label_color_metric import LabelColorMetric, nearest_colors
from monai_invertible.metrics.named_scores import NamedScores
from monai_invertible.metrics.regression_scores import RegressionScores
from monai_invertible.metrics.sample_distance import SampleDistance
from monai_invertible.metrics.segmentation_metric import SegmentationMetric, region_masks
from monai_invertible.metrics.tensor_metric import TensorMetric, interior_mask, tensor_brain_mask
from monai_invertible.metrics.volume_key import volume_key

__all__ = [
    "ClassConfusion",
    "FastMRIMetric",
    "ImageQualityMetric",
    "LabelColorMetric",
    "NamedScores",
    "RegressionScores",
    "SampleDistance",
    "SegmentationMetric",
    "TensorMetric",
    "central_region",
    "grey_levels",
    "interior_mask",
    "nearest_colors",
    "region_masks",
    "tensor_brain_mask",
    "volume_key",
]
