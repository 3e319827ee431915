"""The scores of every volume, and their mean, as one table.

MONAI's ``MetricsSaver`` names rows by the order in which images arrive; a volume's score comes from many slices.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai.utils.dist import string_list_all_gather

from monai_invertible.data.atomic_path import atomic_path
from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.metrics import volume_key

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["ScoreTableSaver"]


class ScoreTableSaver:
    """Write ``output_dir/scores.csv`` after an evaluation: ``filename`` and one column a metric, one row a volume
    sorted by name, and the row "mean".

    Args:
        output_dir: created when needed; a table in it is replaced.
        metrics: the names under which ``FastMRIMetricHandler`` are attached.
    """

    def __init__(self, output_dir: str | os.PathLike, metrics: Sequence[str] = ("nmse", "psnr", "ssim")) -> None:
        self.path = Path(output_dir) / "scores.csv"
        self.metrics = tuple(metrics)
        self._names: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator."""
        from ignite.engine import Events

        engine.add_event_handler(Events.EPOCH_STARTED, lambda engine: self._names.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def collect(self, engine: Engine) -> None:
        """Remember the volumes of the current batch."""
        self._names.update(item["filename"] for item in engine_items(engine))

    def write(self, engine: Engine) -> None:
        """Write the table."""
        names = sorted(set(string_list_all_gather(sorted(self._names))), key=volume_key)
        details: Any = engine.state.metric_details  # type: ignore[attr-defined]
        columns = [details[metric].flatten().tolist() for metric in self.metrics]
        rows = sorted(zip(names, *columns, strict=True))
        with atomic_path(self.path) as path, path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["filename", *self.metrics])
            table.writerows([name, *(f"{score:.6g}" for score in scores)] for name, *scores in rows)
            table.writerow(["mean", *(f"{engine.state.metrics[metric]:.6g}" for metric in self.metrics)])
