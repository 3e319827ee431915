"""Dice and Hausdorff distance of label maps in a MONAI engine, in mm and for every class.

MONAI's ``IgniteMetricHandler`` passes a metric the network's output only; a distance in mm also needs the voxel size
of each subject, and a table of scores its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.handlers.ignite_metric import IgniteMetricHandler

from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.metrics import SegmentationMetric

__all__ = ["SegmentationMetricHandler"]


class SegmentationMetricHandler(IgniteMetricHandler):
    """Give ``engine.state.metrics[name]`` the mean of a ``SegmentationMetric``, and ``[name_class]`` that of each
    class; for ``key_val_metric`` and ``additional_metrics``.

    Of each item it reads the output's "pred" and "label", two label maps (1, \\*spatial) on the same voxels, the voxel
    size of the label's affine, and the batch's "subject". ``engine.state.metric_details[name]`` are the subjects'
    values, (subjects, classes).

    Args:
        metric: "dice", or "hd100", "hd95", ... (to be minimised: use ``metric_cmp_fn``).
        classes: name of each class and its label values.
        save_details: as in MONAI.
    """

    def __init__(self, metric: str, classes: Mapping[str, Sequence[int]], save_details: bool = True) -> None:
        self.classes = dict(classes)
        super().__init__(metric_fn=SegmentationMetric(metric, classes), save_details=save_details)  # type: ignore[arg-type]

    def iteration_completed(self, engine: Any) -> None:
        for item in engine_items(engine):
            label = item.get("label")
            if label is None:
                raise ValueError(
                    f"SegmentationMetricHandler: {item['subject']} must have a label to be scored, got none. Score "
                    "subjects that have one, or use the configuration for inference."
                )
            spacing = getattr(label, "pixdim", None)
            self.metric_fn(item["pred"], label, subject=item["subject"], spacing=spacing)

    def completed(self, engine: Any, name: str) -> None:
        super().completed(engine, name)
        values: torch.Tensor = self.metric_fn.get_buffer()
        means = values.mean(dim=0).tolist()
        engine.state.metrics |= {f"{name}_{key}": mean for key, mean in zip(self.classes, means, strict=True)}
