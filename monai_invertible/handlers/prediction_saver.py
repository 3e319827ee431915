"""The class of every image with its probability, as one table."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_invertible.data.atomic_path import atomic_path
from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.handlers.refuse_existing import refuse_existing

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["PredictionSaver"]


class PredictionSaver:
    """Write ``output_dir/predictions.csv``: name, predicted class and its probability, and the true class of images
    that have a label, in the order of the images.

    Of each item it reads the batch's "name" and the output's "pred", probabilities (classes,), and "label".

    Args:
        output_dir: created when needed.
        classes: their names, in the order of the labels.
        overwrite: replace an existing table; otherwise it raises an error.

    Raises:
        FileExistsError: if the table exists and ``overwrite`` is False.
    """

    def __init__(self, output_dir: str | os.PathLike, classes: Sequence[str], overwrite: bool = False) -> None:
        self.path = Path(output_dir) / "predictions.csv"
        self.classes = list(classes)
        self.overwrite = overwrite
        self._rows: dict[str, list[Any]] = {}

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator."""
        from ignite.engine import Events

        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine | None = None) -> None:
        """Forget all images."""
        self._rows.clear()
        refuse_existing(self, [self.path])

    def collect(self, engine: Engine) -> None:
        """Remember the predictions of the current batch."""
        for item in engine_items(engine):
            probability, found = item["pred"].max(dim=0)
            truth = [] if item.get("label") is None else [self.classes[item["label"]]]
            self._rows[item["name"]] = [self.classes[int(found)], f"{float(probability):.6f}", *truth]

    def write(self, engine: Engine | None = None) -> None:
        """Write the table."""
        head = ["name", "class", "probability", "truth"]
        with atomic_path(self.path) as path, path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(head[: 1 + max(map(len, self._rows.values()), default=len(head))])
            table.writerows([name, *row] for name, row in self._rows.items())
