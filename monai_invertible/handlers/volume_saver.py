"""Write the volumes that a generative network makes, a picture of each, and one to see them together."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai.data.meta_tensor import MetaTensor

from monai_invertible.data import atomic_path, write_nifti
from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.handlers.radiological import radiological
from monai_invertible.handlers.refuse_existing import refuse_existing

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["VolumeSaver"]

_PANELS = {"condition": "Source", "pred": "Generated", "label": "Truth", "error": "Error"}
_LARGEST_ERROR = 0.5  # is white in the pictures


class VolumeSaver:
    """Write ``SUBJECT.nii.gz`` from an evaluator's "pred" (1, x, y, z) in [0, 1], and ``SUBJECT.png``: an axial, a
    coronal and a sagittal slice through the middle; ``mosaic.png`` has the axial slices of the first volumes.

    Of each item it reads "pred" and the batch's "subject" and "condition", whose affine is that of all. A volume that
    was made from another one ("condition") is shown with its source, and, if there is a "label", with this truth and
    the absolute error. One that was made from nothing is no subject: it is named ``sample_001`` and so on. Slices are
    shown as radiologists do: the patient's right on the left.

    Args:
        output_dir: created when needed.
        sources: how many channels of the condition are images; the first is shown. 0 if nothing was given to the
            network, or coordinates alone.
        tiles: how many volumes the mosaic has.
        overwrite: replace existing files; otherwise they raise an error.

    Raises:
        FileExistsError: if a file exists and ``overwrite`` is False. ValueError: if a subject is named "mosaic".
    """

    def __init__(
        self, output_dir: str | os.PathLike, sources: int = 0, tiles: int = 16, overwrite: bool = False
    ) -> None:
        self.output_dir = Path(output_dir)
        self.sources = sources
        self.tiles = tiles
        self.overwrite = overwrite
        self._written: set[str] = set()
        self._mosaic: dict[str, dict[str, Any]] = {}

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator."""
        from ignite.engine import Events

        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.write)
        engine.add_event_handler(Events.COMPLETED, self.write_mosaic)

    def start(self, engine: Engine | None = None) -> None:
        """Forget all volumes."""
        self._written.clear()
        self._mosaic.clear()
        refuse_existing(self, [self.output_dir / "mosaic.png"])

    def write(self, engine: Engine) -> None:
        """Write the volumes of the current batch."""
        for item in engine_items(engine):
            subject, affine = item["subject"], item["condition"].affine.cpu()
            if subject in self._written:  # a distributed sampler repeats items
                continue
            self._written.add(subject)
            name = subject if self.sources else f"sample_{len(self._written):03d}"
            if name == "mosaic":
                raise ValueError(
                    'VolumeSaver: no subject may be named "mosaic", that of the overview, got one. Rename its folder.'
                )
            volume, picture = (self.output_dir / f"{name}{end}" for end in (".nii.gz", ".png"))
            refuse_existing(self, [volume, picture])
            shown = ["condition", "pred", "label"] if self.sources else ["pred"]
            panels = {
                key: item[key][:1].as_subclass(torch.Tensor).cpu().float() for key in shown if item.get(key) is not None
            }
            write_nifti(volume, panels["pred"][0].numpy(), affine.numpy())
            if "label" in panels:
                panels["error"] = (panels["pred"] - panels["label"]).abs() / _LARGEST_ERROR
            rows = {key: _slices(MetaTensor(panel, affine=affine)) for key, panel in panels.items()}
            _picture(picture, name, list(rows.values()), [_PANELS[key] for key in rows])
            if len(self._mosaic) < self.tiles:
                self._mosaic[name] = rows["pred"][0]

    def write_mosaic(self, engine: Engine | None = None) -> None:
        """Write the mosaic."""
        if self._mosaic:
            tiles, width = list(self._mosaic.values()), 4
            rows = [tiles[start : start + width] for start in range(0, len(tiles), width)]
            _picture(self.output_dir / "mosaic.png", f"{len(tiles)} volumes", rows, [""] * len(rows))


def _slices(volume: MetaTensor) -> list[dict[str, Any]]:
    """Axial, coronal and sagittal: ``pixels`` (columns, rows) and ``aspect`` of a pixel."""
    view = radiological(volume)
    spacing = view.pixdim.tolist()
    slices = []
    for axis, (across, up) in {2: (0, 1), 1: (0, 2), 0: (1, 2)}.items():
        pixels = view[0].numpy().take(view.shape[axis + 1] // 2, axis)
        slices.append({"pixels": pixels, "aspect": spacing[up] / spacing[across]})
    return slices


def _picture(path: Path, title: str, rows: list[list[dict[str, Any]]], labels: list[str]) -> None:
    from matplotlib.figure import Figure

    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(2.4 * columns, 2.4 * len(rows) + 0.4), layout="constrained", facecolor="black")
    figure.suptitle(title, color="white", fontsize=10)
    grid: Any = figure.subplots(len(rows), columns, squeeze=False)
    for line, row, label in zip(grid, rows, labels, strict=True):
        for axes, tile in zip(line, row, strict=False):
            axes.imshow(tile["pixels"].T, "gray", origin="lower", aspect=tile["aspect"], vmin=0.0, vmax=1.0)
        for axes in line:
            axes.set_axis_off()
        line[0].set_title(label, color="white", fontsize=9, loc="left")
    with atomic_path(path) as file:
        figure.savefig(file, dpi=100, format="png", facecolor="black")
