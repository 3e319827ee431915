"""Accuracy of a classification, of all images and of each class, in a MONAI engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.handlers.ignite_metric import IgniteMetricHandler

from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.metrics import ClassConfusion

__all__ = ["ClassConfusionHandler"]


class ClassConfusionHandler(IgniteMetricHandler):
    """Give ``engine.state.metrics[name]`` the accuracy, and ``[name_class]`` that of the images of each class that has
    some; for ``key_val_metric`` and ``additional_metrics``.

    Of each item it reads the output's "pred", logits or probabilities (classes,), and "label", and the batch's "name".
    ``engine.state.metric_details[name]`` is the confusion matrix (classes, classes): a row for each true class.

    Args:
        classes: their names, in the order of the labels.

    Raises:
        ValueError: if an image has no label.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        super().__init__(metric_fn=ClassConfusion(len(self.classes)))  # type: ignore[arg-type]

    def iteration_completed(self, engine: Any) -> None:
        for item in engine_items(engine):
            if item.get("label") is None:
                raise ValueError(
                    f"ClassConfusionHandler: {item['name']} must have a label to be scored, got none. Score images "
                    "that have one, or use the configuration for inference."
                )
            self.metric_fn(item["pred"], item["label"], name=item["name"])

    def completed(self, engine: Any, name: str) -> None:
        super().completed(engine, name)
        counts = engine.state.metric_details[name]
        pairs = zip(self.classes, counts, counts.diagonal(), strict=True)
        engine.state.metrics |= {f"{name}_{key}": float(right / row.sum()) for key, row, right in pairs if row.any()}
