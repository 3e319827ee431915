"""The scores of every subject, and their mean, as one table.

MONAI's ``MetricsSaver`` names rows by the order in which images arrive; a volume's score may come from many slices, or
from another process.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai.utils.dist import string_list_all_gather

from monai_invertible.data.atomic_path import atomic_path
from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.metrics import volume_key

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["ScoreTableSaver"]


class ScoreTableSaver:
    """Write ``output_dir/scores.csv`` after an evaluation: one row a subject sorted by name, one column a metric (and
    class), and the row "mean".

    Args:
        output_dir: created when needed; a table in it is replaced.
        metrics: the names under which metric handlers of this package are attached.
        name: the key of the batch that names the subject, and the head of the first column.
        classes: the names of the classes, if each metric has one value a class; their mean comes first.
        filename: the table's.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        metrics: Sequence[str],
        name: str = "filename",
        classes: Sequence[str] = (),
        filename: str = "scores.csv",
    ) -> None:
        self.path = Path(output_dir) / filename
        self.metrics = tuple(metrics)
        self.name = name
        self.columns = [column for metric in metrics for column in (metric, *(f"{metric}_{key}" for key in classes))]
        self._names: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator."""
        from ignite.engine import Events

        engine.add_event_handler(Events.EPOCH_STARTED, lambda engine: self._names.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def collect(self, engine: Engine) -> None:
        """Remember the subjects of the current batch."""
        self._names.update(item[self.name] for item in engine_items(engine))

    def write(self, engine: Engine) -> None:
        """Write the table."""
        names = sorted(set(string_list_all_gather(sorted(self._names))), key=volume_key)
        details: Any = engine.state.metric_details  # type: ignore[attr-defined]
        tables = [details[metric] for metric in self.metrics]
        if len(self.columns) > len(tables):  # the mean over the classes, and the classes
            tables = [torch.cat([table.mean(dim=1, keepdim=True), table], dim=1) for table in tables]
        rows = sorted(zip(names, *torch.cat(tables, dim=1).T.tolist(), strict=True))
        means = [engine.state.metrics[column] for column in self.columns]
        with atomic_path(self.path) as path, path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow([self.name, *self.columns])
            for name, *values in [*rows, ("mean", *means)]:
                table.writerow([name, *(f"{value:.6g}" for value in values)])
