"""MONAI's metrics of images in a MONAI engine, with the name of each subject for the table of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.handlers.ignite_metric import IgniteMetricHandler
from monai.metrics.regression import RegressionMetric

from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.metrics import RegressionScores

__all__ = ["RegressionMetricHandler"]


class RegressionMetricHandler(IgniteMetricHandler):
    """Give ``engine.state.metrics[name]`` the mean of a metric, and ``[name_channel]`` that of each named channel; for
    ``key_val_metric`` and ``additional_metrics``.

    Of each item it reads the output's "pred" and "label", (C, \\*spatial), and the batch's "subject".
    ``engine.state.metric_details[name]`` are the subjects' values, (subjects, 1) or (subjects, channels).

    Args:
        metric: of MONAI, such as ``PSNRMetric`` or ``MSEMetric`` (to be minimised: use ``metric_cmp_fn``).
        channels: their names, to score each by itself; none to score the images as a whole.
        save_details: as in MONAI.

    Raises:
        ValueError: if a subject has no truth, or one of another shape.
    """

    def __init__(self, metric: RegressionMetric, channels: Sequence[Any] = (), save_details: bool = True) -> None:
        self.channels = [str(channel) for channel in channels]
        scores = RegressionScores(metric, channel_wise=bool(self.channels))
        super().__init__(metric_fn=scores, save_details=save_details)  # type: ignore[arg-type]

    def iteration_completed(self, engine: Any) -> None:
        for item in engine_items(engine):
            if item.get("label") is None:
                raise ValueError(
                    f"RegressionMetricHandler: {item['subject']} must have a truth to be scored, got none. Score "
                    "subjects that have one, or use the configuration for inference."
                )
            self.metric_fn(item["pred"], item["label"], name=item["subject"])

    def completed(self, engine: Any, name: str) -> None:
        super().completed(engine, name)
        if self.channels:
            means = self.metric_fn.get_buffer().mean(dim=0).tolist()
            engine.state.metrics |= {f"{name}_{key}": mean for key, mean in zip(self.channels, means, strict=True)}
