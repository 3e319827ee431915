"""Pictures of segmentations: three orthogonal slices through the foreground, the classes in colour on the image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.transforms.utils import generate_spatial_bounding_box

from monai_invertible.data import atomic_path
from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.handlers.radiological import radiological
from monai_invertible.handlers.refuse_existing import refuse_existing
from monai_invertible.metrics import region_masks, volume_key

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["OverlaySaver"]

COLORS = ("#0072b2", "#e69f00", "#cc3311", "#009988", "#ee3377", "#bbbbbb")  # told apart by colour-blind readers too
PANELS = {"image": "Image", "label": "Truth", "pred": "Prediction"}


class OverlaySaver:
    """Write a picture of every subject, or of the worst and the median one: the rows are image, truth if there is one,
    and prediction; the columns an axial, a coronal and a sagittal slice, where the foreground is largest.

    Of each item it reads "image", "label" (if there is one) and "pred", all on the same voxels with their affine, and
    "subject". Slices are shown as radiologists do: the patient's right on the left. Where classes overlap, the one of
    fewer label values is on top.

    Args:
        output_dir: created when needed.
        classes: name of each class and its label values.
        metric: the name under which ``SegmentationMetricHandler`` for the Dice is attached: ``worst.png`` and
            ``median.png`` are written. None: ``SUBJECT.png`` for every subject.
        channel: the channel of the image to show.
        overwrite: replace existing files; otherwise they raise an error.

    Raises:
        FileExistsError: if a file exists and ``overwrite`` is False.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        classes: Mapping[str, Sequence[int]],
        metric: str | None = None,
        channel: int = 0,
        overwrite: bool = False,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.names = list(classes)
        self.painted = dict(sorted(classes.items(), key=lambda entry: -len(entry[1])))
        self.metric = metric
        self.channel = channel
        self.overwrite = overwrite
        self._cases: dict[str, list[dict[str, Any]]] = {}

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator."""
        from ignite.engine import Events

        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write_extremes)

    def start(self, engine: Engine | None = None) -> None:
        """Forget all subjects."""
        self._cases.clear()
        if self.metric:
            refuse_existing(self, [self._file("worst"), self._file("median")])

    def collect(self, engine: Engine) -> None:
        """Take the slices of the current batch; write them, or keep them until all scores are known."""
        for item in engine_items(engine):
            name = item["subject"]
            if name in self._cases:  # a distributed sampler repeats items
                continue
            if self.metric:
                self._cases[name] = self._slices(item)
            else:
                self._cases[name] = []
                refuse_existing(self, [self._file(name)])
                self._write(name, name, self._slices(item))

    def write_extremes(self, engine: Engine) -> None:
        """Write the worst and the median case."""
        if not self.metric or not self._cases:
            return
        scores: torch.Tensor = engine.state.metric_details[self.metric]  # type: ignore[attr-defined]
        names = sorted(self._cases, key=volume_key)
        ranked = sorted(zip(scores.mean(dim=1).tolist(), names, scores.tolist(), strict=True))
        for file, (mean, name, values) in {"worst": ranked[0], "median": ranked[len(ranked) // 2]}.items():
            text = ", ".join(f"{key} {value:.3f}" for key, value in zip(self.names, values, strict=True))
            self._write(file, f"{name}: the {file} of {len(ranked)}, Dice {mean:.3f} ({text})", self._cases[name])

    def _file(self, name: str) -> Path:
        return self.output_dir / f"{name}.png"

    def _slices(self, item: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One dictionary a plane: ``image``, the class masks of ``label`` and ``pred``, and the ``spacing`` in mm."""
        view = {key: item[key] for key in PANELS if item.get(key) is not None}
        view["image"] = view["image"][[self.channel]]
        view = {key: radiological(value) for key, value in view.items()}
        start, stop = generate_spatial_bounding_box(view["image"], lambda x: x != 0, margin=2, allow_smaller=True)
        if any(stop):  # cut the black margin off
            box = (slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))
            view = {key: value[box] for key, value in view.items()}
        spacing = view["pred"].pixdim.tolist()
        image, low, high = _window(view["image"][0].float().cpu().numpy())
        masks = {key: region_masks(view[key], self.painted).cpu().numpy() for key in view if key != "image"}
        foreground = masks.get("label", masks["pred"]).any(0)
        planes = []
        for axis in (2, 1, 0):
            rest = tuple(other for other in range(3) if other != axis)
            area = foreground.sum(rest)
            index = int(area.argmax()) if area.any() else len(area) // 2
            plane: dict[str, Any] = {key: value.take(index, axis + 1) for key, value in masks.items()}
            grey = np.clip((image.take(index, axis) - low) / (high - low), 0, 1)
            planes.append({"image": grey, **plane, "spacing": [spacing[other] for other in rest]})
        return planes

    def _write(self, file: str, title: str, planes: list[dict[str, Any]]) -> None:
        with atomic_path(self._file(file)) as path:
            _picture(path, title, planes, list(self.painted))


def _window(image: np.ndarray) -> tuple[np.ndarray, float, float]:
    """The image, its background (exactly 0) black, and the grey values that are black and white."""
    values = image[image != 0]
    low, high = np.percentile(values, (1, 99.5)) if values.size else (0.0, 1.0)
    return np.where(image == 0, low, image), float(low), float(max(high, low + 1e-6))


def _picture(path: Path, title: str, planes: list[dict[str, Any]], classes: list[str]) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = [key for key in PANELS if key in planes[0]]
    widths, heights = np.array([np.multiply(plane["image"].shape, plane["spacing"]) for plane in planes]).T
    figure = Figure(figsize=(9.0, 9.0 * len(rows) * max(heights) / sum(widths) + 0.8), layout="constrained")
    figure.set_facecolor("black")
    figure.suptitle(title, color="white", fontsize=11)
    axes = figure.subplots(len(rows), 3, squeeze=False, width_ratios=widths)
    for row, key in zip(axes, rows, strict=True):
        for column, (plane, cell) in enumerate(zip(planes, row, strict=True)):
            picture = np.repeat(plane["image"][..., None], 3, axis=-1)
            for mask, color in zip(plane.get(key, ()) if key != "image" else (), COLORS, strict=False):
                picture[mask] = 0.35 * plane["image"][mask][:, None] + 0.65 * np.array(to_rgb(color))
            aspect = plane["spacing"][1] / plane["spacing"][0]
            cell.imshow(picture.swapaxes(0, 1), origin="lower", aspect=aspect, interpolation="nearest")
            cell.set_axis_off()
            if column < 2:
                cell.text(0.02, 0.5, "R", color="white", fontsize=9, va="center", transform=cell.transAxes)
            if column == 0:
                cell.text(0.02, 0.98, PANELS[key], color="white", fontsize=10, va="top", transform=cell.transAxes)
    patches = [Patch(color=color, label=name) for name, color in zip(classes, COLORS, strict=False)]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), labelcolor="white", frameon=False)
    figure.savefig(path, dpi=110, format="png", facecolor="black")
