"""The accuracy of each class as a table, and the confusion matrix as a picture."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from monai_invertible.data.atomic_path import atomic_path
from monai_invertible.handlers.refuse_existing import refuse_existing

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["ConfusionSaver"]


class ConfusionSaver:
    """Write ``output_dir/scores.csv``, a row for each class (its images, the share that was found) and the row "mean"
    of all images; and ``output_dir/confusion.png``, how often each true class (row) was called what (column).

    Args:
        output_dir: created when needed; a table in it is replaced.
        classes: their names, in the order of the labels.
        metric: the name under which ``ClassConfusionHandler`` is attached.
        overwrite: replace an existing picture; otherwise it raises an error.

    Raises:
        FileExistsError: if the picture exists and ``overwrite`` is False.
    """

    def __init__(
        self, output_dir: str | os.PathLike, classes: Sequence[str], metric: str = "accuracy", overwrite: bool = False
    ) -> None:
        self.table = Path(output_dir) / "scores.csv"
        self.picture = Path(output_dir) / "confusion.png"
        self.classes = list(classes)
        self.metric = metric
        self.overwrite = overwrite

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator."""
        from ignite.engine import Events

        engine.add_event_handler(Events.STARTED, lambda engine: refuse_existing(self, [self.picture]))
        engine.add_event_handler(Events.COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Write both."""
        counts: torch.Tensor = engine.state.metric_details[self.metric]  # type: ignore[attr-defined]
        images = counts.sum(dim=1)
        scored = zip(self.classes, images, counts.diagonal(), strict=True)
        rows = [(name, int(n), float(right / n)) for name, n, right in scored]
        rows.append(("mean", int(images.sum()), engine.state.metrics[self.metric]))
        with atomic_path(self.table) as path, path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["class", "images", self.metric])
            table.writerows((name, n, f"{score:.6g}") for name, n, score in rows)
        with atomic_path(self.picture) as path:
            _draw(path, counts, self.classes, f"{self.metric} {engine.state.metrics[self.metric]:.3f}")


def _draw(path: Path, counts: torch.Tensor, classes: list[str], title: str) -> None:
    from matplotlib.figure import Figure

    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    edge = 1.6 + 0.5 * len(classes)
    figure = Figure(figsize=(edge, edge), layout="constrained")
    axes: Any = figure.subplots()
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    for row, column in counts.nonzero().tolist():
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, int(counts[row, column]), ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    figure.savefig(path, dpi=100, format="png")
