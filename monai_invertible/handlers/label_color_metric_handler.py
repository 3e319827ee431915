"""Scores of label pictures, or of photos by the labels that a segmentation network finds in them, in a MONAI engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.handlers.ignite_metric import IgniteMetricHandler

from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.metrics import LabelColorMetric, grey_levels, nearest_colors

__all__ = ["LabelColorMetricHandler"]


class LabelColorMetricHandler(IgniteMetricHandler):
    """Give ``engine.state.metrics[name]`` a ``LabelColorMetric``; for ``key_val_metric`` and ``additional_metrics``.

    Photo to labels: the classes of "pred" and "label" are their nearest colours. Labels to photo, the FCN score of
    Isola et al. 2017: the classes of "pred", a photo, are what a segmentation network finds in it, those of "image",
    the label picture it was made from, the nearest colours. Pictures are in [-1, 1]; the batch has a "name".
    ``engine.state.metric_details[name]`` are the images' values, (images, 1).

    Args:
        metric: "pixel_accuracy", "class_accuracy" or "mean_iou".
        colors: name and colour (0 to 255) of each class that is scored.
        void_colors: of other classes, whose pixels are not.
        segmentation: a network, from photos (1, 3, rows, columns) in [-1, 1] to logits (1, classes, rows, columns) in
            the order of ``colors``. None for photo to labels.
        save_details: as in MONAI.
    """

    def __init__(
        self,
        metric: str,
        colors: Mapping[str, Sequence[int]],
        void_colors: Mapping[str, Sequence[int]] | None = None,
        segmentation: Callable[[torch.Tensor], torch.Tensor] | None = None,
        save_details: bool = True,
    ) -> None:
        self.colors = {**colors, **(void_colors or {})}
        self.segmentation = segmentation
        super().__init__(metric_fn=LabelColorMetric(metric, len(colors)), save_details=save_details)  # type: ignore[arg-type]

    def iteration_completed(self, engine: Any) -> None:
        wanted = "label" if self.segmentation is None else "image"
        for item in engine_items(engine):
            truth = item.get(wanted)
            if truth is None:
                raise ValueError(
                    f'LabelColorMetricHandler: {item["name"]} must have "{wanted}" to be scored, got none. Score pairs.'
                )
            self.metric_fn(self._classes(item["pred"]), self._nearest(truth), name=item["name"])

    def _nearest(self, picture: torch.Tensor) -> torch.Tensor:
        return nearest_colors(grey_levels(picture), self.colors)

    def _classes(self, prediction: torch.Tensor) -> torch.Tensor:
        if self.segmentation is None:
            return self._nearest(prediction)
        with torch.no_grad():
            return self.segmentation(prediction.as_subclass(torch.Tensor)[None].float()).argmax(dim=1)[0]
