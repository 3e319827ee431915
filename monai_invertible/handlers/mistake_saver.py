"""A picture of the images that a classifier got wrong with the greatest confidence."""

from __future__ import annotations

import heapq
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from monai_invertible.data.atomic_path import atomic_path
from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.handlers.refuse_existing import refuse_existing

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["MistakeSaver"]


class MistakeSaver:
    """Write ``output_dir/mistakes.png``: the images whose wrong class has the greatest probability, with it and the
    true class. If all are right there is no picture, and none of an earlier run either.

    Of each item it reads "image" (3, rows, columns), "label", "pred", probabilities (classes,), and "name".

    Args:
        output_dir: created when needed.
        classes: their names, in the order of the labels.
        mean: what was subtracted from red, green and blue, in grey levels of 0 to 255.
        std: what they were divided by afterwards.
        images: the largest number shown.
        overwrite: replace an existing picture; otherwise it raises an error.

    Raises:
        FileExistsError: if the picture exists and ``overwrite`` is False.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        classes: Sequence[str],
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (255.0, 255.0, 255.0),
        images: int = 24,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(output_dir) / "mistakes.png"
        self.classes = list(classes)
        self.mean, self.std = (torch.tensor(values).reshape(3, 1, 1) for values in (mean, std))
        self.images = images
        self.overwrite = overwrite
        self._worst: list[tuple[float, str, str, torch.Tensor]] = []  # a heap: the least confident comes first

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator."""
        from ignite.engine import Events

        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine | None = None) -> None:
        """Forget all images."""
        self._worst.clear()
        refuse_existing(self, [self.path])

    def collect(self, engine: Engine) -> None:
        """Keep the worst mistakes so far."""
        for item in engine_items(engine):
            probability, found = float(item["pred"].max()), int(item["pred"].argmax())
            if found == item["label"] or any(name == item["name"] for _, name, *_ in self._worst):
                continue
            text = f"{self.classes[found]} {100 * probability:.0f} %\n(true: {self.classes[item['label']]})"
            levels = (item["image"].as_subclass(torch.Tensor).cpu() * self.std + self.mean) / 255
            heapq.heappush(self._worst, (probability, item["name"], text, levels))
            if len(self._worst) > self.images:
                heapq.heappop(self._worst)

    def write(self, engine: Engine | None = None) -> None:
        """Write the picture."""
        if not self._worst:
            self.path.unlink(missing_ok=True)  # start() has seen that it may be replaced
            return
        with atomic_path(self.path) as path:
            _draw(path, [(text, levels) for *_, text, levels in sorted(self._worst, key=lambda entry: -entry[0])])


def _draw(path: Path, mistakes: list[tuple[str, torch.Tensor]], columns: int = 8) -> None:
    from matplotlib.figure import Figure

    rows = -(-len(mistakes) // columns)
    figure = Figure(figsize=(1.5 * columns, 1.9 * rows), layout="constrained")
    grid: Any = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (text, levels) in zip(grid.flat, mistakes, strict=False):
        axes.imshow(levels.clamp(0, 1).movedim(0, -1).numpy())
        axes.set_title(text, fontsize=8)
    figure.savefig(path, dpi=100, format="png")
