"""Errors of translated pictures, and of pictures that were translated there and back, in a MONAI engine."""

from __future__ import annotations

from typing import Any

from monai.handlers.ignite_metric import IgniteMetricHandler

from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.metrics import ImageQualityMetric

__all__ = ["TranslationMetricHandler"]


class TranslationMetricHandler(IgniteMetricHandler):
    """Give ``engine.state.metrics[name]`` the mean of an ``ImageQualityMetric``; for ``key_val_metric`` and
    ``additional_metrics``.

    Of each item it reads the output's "pred" and "label", or "cycled" (see ``CycleHandler``) and "image", pictures in
    [-1, 1], and the batch's "name". ``engine.state.metric_details[name]`` are the images' values, (images, 1).

    Args:
        metric: "mae" (to be minimised: use ``metric_cmp_fn``), "psnr" or "ssim".
        cycle: compare "cycled" with "image", which needs no pair.
        save_details: as in MONAI.
    """

    def __init__(self, metric: str, cycle: bool = False, save_details: bool = True) -> None:
        self.keys = ("cycled", "image") if cycle else ("pred", "label")
        super().__init__(metric_fn=ImageQualityMetric(metric), save_details=save_details)  # type: ignore[arg-type]

    def iteration_completed(self, engine: Any) -> None:
        found, wanted = self.keys
        for item in engine_items(engine):
            if item.get(found) is None or item.get(wanted) is None:
                missing = found if item.get(found) is None else wanted
                raise ValueError(
                    f'TranslationMetricHandler: {item["name"]} must have "{missing}" to be scored, got none. '
                    + ("Attach CycleHandler." if missing == "cycled" else "Score pairs, or the cycle alone.")
                )
            self.metric_fn(item[found], item[wanted], name=item["name"])
