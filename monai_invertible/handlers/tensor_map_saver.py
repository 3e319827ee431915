"""Write the diffusion tensors that a network has predicted, their MD and FA as maps, and pictures to look at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor

from monai_invertible.data import atomic_path, write_nifti
from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.handlers.radiological import radiological
from monai_invertible.handlers.refuse_existing import refuse_existing
from monai_invertible.metrics import tensor_brain_mask
from monai_invertible.operators import fractional_anisotropy, mean_diffusivity, principal_direction

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["TensorMapSaver"]

_PANELS = {"image": "Input", "pred": "Prediction", "label": "Truth"}
_MAPS = {"MD": mean_diffusivity, "FA": fractional_anisotropy}
_MAX_DIFFUSIVITY = 3e-3  # mm^2/s, of free water in the body: white in the pictures


class TensorMapSaver:
    """Write, from an evaluator's "pred", ``SUBJECT_tensor.nii.gz`` (six components, mm^2/s), ``SUBJECT_MD.nii.gz``
    (mm^2/s) and ``SUBJECT_FA.nii.gz``; with a truth ("label") also ``SUBJECT_truth_MD.nii.gz`` and
    ``SUBJECT_truth_FA.nii.gz``. ``SUBJECT.png`` shows MD, and FA in the colour of the principal direction, of input,
    prediction and truth, and the absolute error, in an axial and a sagittal slice through the middle of the brain.

    Of each item it reads "image", "pred" and "label" (if there is one), tensors (6, x, y, z) in mm^2/s, and the batch's
    "subject" and "mask", whose affine is that of all. The prediction is set to 0 outside the mask.

    Colours: red left-right, green front-back, blue up-down; as bright as the FA. Slices are shown as radiologists do:
    the patient's right on the left.

    Args:
        output_dir: created when needed.
        overwrite: replace existing files; otherwise they raise an error.

    Raises:
        FileExistsError: if a file exists and ``overwrite`` is False.
    """

    def __init__(self, output_dir: str | os.PathLike, overwrite: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.overwrite = overwrite
        self._written: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator."""
        from ignite.engine import Events

        engine.add_event_handler(Events.STARTED, lambda engine: self._written.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the subjects of the current batch."""
        for item in engine_items(engine):
            name = item["subject"]
            if name in self._written:  # a distributed sampler repeats items
                continue
            self._written.add(name)
            mask, affine = item["mask"].as_subclass(Tensor).cpu(), item["mask"].affine.cpu().numpy()
            tensors = {key: item[key].as_subclass(Tensor).cpu().float() for key in _PANELS if item.get(key) is not None}
            tensors = {key: tensor * tensor_brain_mask(tensor) for key, tensor in tensors.items()}  # rounding around it
            tensors["pred"] = tensors["pred"] * (mask != 0)
            volumes = {f"{name}_tensor.nii.gz": tensors["pred"].movedim(0, -1)}
            for key, compute in _MAPS.items():
                volumes[f"{name}_{key}.nii.gz"] = compute(tensors["pred"])
                if "label" in tensors:
                    volumes[f"{name}_truth_{key}.nii.gz"] = compute(tensors["label"])
            refuse_existing(self, (self.output_dir / file for file in (f"{name}.png", *volumes)))
            for file, volume in volumes.items():
                write_nifti(self.output_dir / file, volume.contiguous().numpy(), affine)
            with atomic_path(self.output_dir / f"{name}.png") as path:
                _picture(path, name, _panels(tensors, mask, affine))


def _colours(tensor: Tensor, affine: np.ndarray) -> Tensor:
    """(3, \\*spatial) in [0, 1]: the principal direction in the patient's axes, times FA."""
    frame = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.linalg.det(frame) > 0:  # FSL's convention of bvecs
        frame = frame * [-1.0, 1.0, 1.0]
    direction = torch.tensordot(torch.from_numpy(frame).float(), principal_direction(tensor), dims=1)
    return (direction.abs() * fractional_anisotropy(tensor)).clamp(0.0, 1.0)


def _panels(tensors: Mapping[str, Tensor], mask: Tensor, affine: np.ndarray) -> list[dict[str, Any]]:
    """One dictionary a row of the picture: slices (1 or 3 colours, columns, rows) in [0, 1], "aspect" of a pixel."""

    def view(volume: Tensor) -> Any:
        return radiological(MetaTensor(volume, affine=torch.from_numpy(affine)))

    diffusivity = {key: mean_diffusivity(tensor)[None] / _MAX_DIFFUSIVITY for key, tensor in tensors.items()}
    anisotropy = {key: _colours(tensor, affine) for key, tensor in tensors.items()}
    if "label" in tensors:
        fa = [fractional_anisotropy(tensors[key])[None] for key in ("pred", "label")]
        diffusivity["error"] = (diffusivity["pred"] - diffusivity["label"]).abs()
        anisotropy["error"] = (fa[0] - fa[1]).abs()
    brain = view(mask)
    spacing, inside = brain.pixdim.tolist(), np.argwhere(brain[0].numpy() != 0)
    middle = np.rint((inside.min(0) + inside.max(0)) / 2).astype(int)
    rows = []
    for maps in (diffusivity, anisotropy):
        views = {key: view(volume).numpy().clip(0.0, 1.0) for key, volume in maps.items()}
        for axis, (across, up) in {2: (0, 1), 0: (1, 2)}.items():  # axial, sagittal
            slices = {key: volume.take(middle[axis], axis + 1) for key, volume in views.items()}
            rows.append({**slices, "aspect": spacing[up] / spacing[across]})
    return rows


def _picture(path: Path, title: str, rows: list[dict[str, Any]]) -> None:
    from matplotlib.figure import Figure

    names = [key for key in (*_PANELS, "error") if key in rows[0]]
    figure = Figure(figsize=(2.6 * len(names), 10.0), layout="constrained", facecolor="black")
    figure.suptitle(title, color="white")
    heights = [row["pred"].shape[2] / row["pred"].shape[1] * row["aspect"] for row in rows]
    grid: Any = figure.subplots(len(rows), len(names), squeeze=False, height_ratios=heights)
    for line, row, label in zip(grid, rows, ("MD", "MD", "FA", "FA"), strict=True):
        for axes, key in zip(line, names, strict=True):
            pixels = row[key].transpose(2, 1, 0)  # (rows, columns, colours)
            axes.imshow(
                pixels.squeeze(2) if pixels.shape[2] == 1 else pixels, "gray", aspect=row["aspect"], vmin=0, vmax=1
            )
            axes.invert_yaxis()
            axes.set_axis_off()
            axes.set_title(f"{label}, {_PANELS.get(key, 'Error').lower()}", color="white", fontsize=9)
    figure.savefig(path, dpi=110, format="png", facecolor="black")
