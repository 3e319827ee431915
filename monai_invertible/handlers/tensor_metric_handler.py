"""Scores of diffusion tensors in a MONAI engine, with the name of each subject for the table of scores."""

from __future__ import annotations

from typing import Any

from monai.handlers.ignite_metric import IgniteMetricHandler

from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.metrics import TensorMetric

__all__ = ["TensorMetricHandler"]


class TensorMetricHandler(IgniteMetricHandler):
    """Give ``engine.state.metrics[name]`` the mean of a ``TensorMetric``; for ``key_val_metric`` and
    ``additional_metrics``.

    Of each item it reads the output's "pred" and "label", tensors (6, x, y, z) in mm^2/s, and the batch's "subject".
    ``engine.state.metric_details[name]`` are the subjects' values.

    Args:
        metric: "rmse", "rmse_md", "rmse_fa" (to be minimised: use ``metric_cmp_fn``) or "positive_definite".
        interior: score the interior of the brain alone.
        save_details: as in MONAI.
    """

    def __init__(self, metric: str = "rmse", interior: bool = False, save_details: bool = True) -> None:
        super().__init__(metric_fn=TensorMetric(metric, interior), save_details=save_details)  # type: ignore[arg-type]

    def iteration_completed(self, engine: Any) -> None:
        for item in engine_items(engine):
            if item.get("label") is None:
                raise ValueError(
                    f"TensorMetricHandler: {item['subject']} must have a truth to be scored, got none. Score subjects "
                    "that have one, or use the configuration for inference."
                )
            self.metric_fn(item["pred"], item["label"], subject=item["subject"])
