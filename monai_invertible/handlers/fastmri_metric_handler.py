"""fastMRI's scores of whole volumes in a MONAI engine.

MONAI's ``IgniteMetricHandler`` passes a metric the network's output only; these scores also need to know which slice
of which volume it is.
"""

from __future__ import annotations

from typing import Any

from monai.handlers.ignite_metric import IgniteMetricHandler

from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.metrics import FastMRIMetric, central_region

__all__ = ["FastMRIMetricHandler"]


class FastMRIMetricHandler(IgniteMetricHandler):
    """Give ``engine.state.metrics[name]`` the NMSE, PSNR or SSIM of ``FastMRIMetric``; for ``key_val_metric`` and
    ``additional_metrics``.

    Of each item it reads the output's "pred" and the batch's ``filename``, ``slice_index``, ``max`` and ``reference``
    (those of ``LoadFastMRId``). Without a ``reference`` it takes the output's "label", cropped to ``recon_size``.
    ``engine.state.metric_details[name]`` are the volumes' values.

    Args:
        metric: "nmse" (to be minimised: use ``metric_cmp_fn``), "psnr" or "ssim".
        save_details: as in MONAI.
    """

    def __init__(self, metric: str = "ssim", save_details: bool = True) -> None:
        super().__init__(metric_fn=FastMRIMetric(metric), save_details=save_details)  # type: ignore[arg-type]

    def iteration_completed(self, engine: Any) -> None:
        for item in engine_items(engine):
            reference = item.get("reference")
            if reference is None:
                if item.get("label") is None:
                    raise ValueError(
                        f'FastMRIMetricHandler: {item["filename"]} must have a "reference" or a target, got none. '
                        "Score volumes that have one: the validation set, not the test set."
                    )
                reference = central_region(item["label"], item["recon_size"])
            self.metric_fn(
                item["pred"][None],
                reference[None],
                filename=[item["filename"]],
                slice_index=[item["slice_index"]],
                maximum=[item["max"]],
            )
