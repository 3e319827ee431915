"""Write the pictures that a generator makes, and one sheet to look at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from monai_invertible.data import atomic_path
from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.handlers.refuse_existing import refuse_existing
from monai_invertible.metrics import grey_levels

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["TranslationSaver"]

_PANELS = {"image": "Input", "pred": "Output", "label": "Target", "cycled": "There and back"}


class TranslationSaver:
    """Write ``output_dir/NAME.png`` from an evaluator's "pred" in [-1, 1], and ``output_dir/sheet.png``: the first
    pictures, a row each, with input, output, target if there is one, and cycle if ``CycleHandler`` is attached.

    Args:
        output_dir: created when needed.
        rows: how many pictures the sheet has.
        overwrite: replace existing files; otherwise they raise an error.

    Raises:
        FileExistsError: if a file exists and ``overwrite`` is False. ValueError: if a picture is named "sheet".
    """

    def __init__(self, output_dir: str | os.PathLike, rows: int = 6, overwrite: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.rows = rows
        self.overwrite = overwrite
        self._written: set[str] = set()
        self._sheet: dict[str, dict[str, np.ndarray]] = {}

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator."""
        from ignite.engine import Events

        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)
        engine.add_event_handler(Events.COMPLETED, self.write_sheet)

    def start(self, engine: Engine | None = None) -> None:
        """Forget all pictures."""
        self._written.clear()
        self._sheet.clear()
        refuse_existing(self, [self._file("sheet")])

    def write(self, engine: Engine) -> None:
        """Write the pictures of the current batch."""
        from PIL import Image

        for item in engine_items(engine):
            name = item["name"]
            if name in self._written:  # a distributed sampler repeats items
                continue
            if name == "sheet":
                raise ValueError('TranslationSaver: no picture may be named "sheet", got one. Rename its file.')
            refuse_existing(self, [self._file(name)])
            panels = {key: _bytes(item[key]) for key in _PANELS if item.get(key) is not None}
            with atomic_path(self._file(name)) as path:
                Image.fromarray(panels["pred"]).save(path)
            self._written.add(name)
            if len(self._sheet) < self.rows:
                self._sheet[name] = panels

    def write_sheet(self, engine: Engine | None = None) -> None:
        """Write the sheet."""
        if self._sheet:
            with atomic_path(self._file("sheet")) as path:
                _draw(path, self._sheet)

    def _file(self, name: str) -> Path:
        return self.output_dir / f"{name}.png"


def _bytes(picture: torch.Tensor) -> np.ndarray:
    """(3, rows, columns) in [-1, 1] -> (rows, columns, 3) uint8."""
    return grey_levels(picture).cpu().numpy().astype(np.uint8).transpose(1, 2, 0)


def _draw(path: Path, sheet: dict[str, dict[str, np.ndarray]]) -> None:
    from matplotlib.figure import Figure

    columns = [key for key in _PANELS if key in next(iter(sheet.values()))]
    figure = Figure(figsize=(2.6 * len(columns), 2.6 * len(sheet) + 0.3), layout="constrained")
    grid: Any = figure.subplots(len(sheet), len(columns), squeeze=False)
    for row, (name, panels) in zip(grid, sheet.items(), strict=True):
        for axes, key in zip(row, columns, strict=True):
            axes.imshow(panels[key])
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    for axes, key in zip(grid[0], columns, strict=True):
        axes.set_title(_PANELS[key])
    figure.savefig(path, dpi=100, format="png")
