"""Write the volumes that a reconstruction network has reconstructed: HDF5, NIfTI and a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.networks.blocks.fft_utils_t import ifftn_centered_t

from monai_invertible.data.atomic_path import atomic_path
from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.handlers.refuse_existing import refuse_existing
from monai_invertible.metrics import central_region
from monai_invertible.operators import magnitude

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["ReconstructionSaver"]


class ReconstructionSaver:
    """Collect the slices of each volume from an evaluator's "pred"; write a volume when it is complete or the run ends.

    - ``NAME.h5``: ``reconstruction`` (slices, rows, columns) float32, the magnitude in the file's own scale, cropped to
      ``recon_size``; the format of fastMRI's leaderboard and of ``fastmri.evaluate``;
    - ``NAME.nii.gz``: the same as (rows, columns, slices), with the voxel size in mm of the ISMRMRD header. fastMRI
      files do not tell the patient's position: the axes are those of the scanner's matrix, not of the body;
    - ``NAME.png``: of the middle slice, zero-filled | reconstruction, and with a reference | reference | error x 5,
      all with one grey scale.

    The batch needs the keys of ``LoadFastMRId``. A volume of which slices are missing is written with those there are.

    Args:
        output_dir: created when needed.
        overwrite: replace existing files; otherwise they raise an error before anything of the volume is written.

    Raises:
        FileExistsError: if an output exists and ``overwrite`` is False.
    """

    suffixes = (".h5", ".nii.gz", ".png")

    def __init__(self, output_dir: str | os.PathLike, overwrite: bool = False) -> None:
        self.output_dir = Path(output_dir)
        self.overwrite = overwrite
        self._volumes: dict[str, dict[str, Any]] = {}
        self._written: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Register on an evaluator."""
        from ignite.engine import Events

        engine.add_event_handler(Events.STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write_all)

    def reset(self, engine: Engine | None = None) -> None:
        """Forget all volumes."""
        self._volumes.clear()
        self._written.clear()

    def collect(self, engine: Engine) -> None:
        """Take the slices of the current batch; write the volumes that they complete."""
        for item in engine_items(engine):
            name = item["filename"]
            if name in self._written:  # a distributed sampler repeats items
                continue
            if name not in self._volumes:
                refuse_existing(self, (self._path(name, suffix) for suffix in self.suffixes))
                size, spacing = item["recon_size"].tolist(), item["spacing"].tolist()
                self._volumes[name] = {"images": {}, "size": size, "spacing": spacing, "count": int(item["num_slices"])}
            volume = self._volumes[name]
            image = self._slices(magnitude(item["pred"][None].detach()), volume["size"])
            first = int(item["slice_index"])
            volume["images"].update({first + offset: x for offset, x in enumerate(image)})
            middle = volume["count"] // 2 - first
            if 0 <= middle < len(image):
                volume["zero_filled"] = self._slices(_zero_filled(item["kspace"]), image.shape[-2:])[middle]
                if item.get("reference") is not None:
                    volume["reference"] = self._slices(item["reference"][None], image.shape[-2:])[middle]
            if len(volume["images"]) == volume["count"]:
                self._write(name)

    def write_all(self, engine: Engine | None = None) -> None:
        """Write the volumes that are still incomplete."""
        for name in list(self._volumes):
            self._write(name)

    @staticmethod
    def _slices(image: torch.Tensor, size: Any) -> np.ndarray:
        """(1, 1, [slices,] rows, columns) -> (slices, rows, columns), cropped."""
        image = central_region(image.float().cpu(), size)
        return image.reshape(-1, *image.shape[-2:]).numpy()

    def _path(self, name: str, suffix: str) -> Path:
        return self.output_dir / (Path(name).stem + suffix)

    def _write(self, name: str) -> None:
        import h5py
        import nibabel

        volume = self._volumes.pop(name)
        self._written.add(name)
        order = sorted(volume["images"])
        array = np.stack([volume["images"][index] for index in order])
        with atomic_path(self._path(name, ".h5")) as path, h5py.File(path, "w") as file:
            file.create_dataset("reconstruction", data=array)
        with atomic_path(self._path(name, ".nii.gz")) as path:
            image = nibabel.Nifti1Image(np.moveaxis(array, 0, -1), np.diag([*volume["spacing"], 1.0]))
            image.header.set_xyzt_units("mm")
            nibabel.save(image, path)
        if "zero_filled" in volume:
            middle = volume["images"][volume["count"] // 2]
            with atomic_path(self._path(name, ".png")) as path:
                _picture(path, name, volume["zero_filled"], middle, volume.get("reference"))


def _zero_filled(kspace: torch.Tensor) -> torch.Tensor:
    """(coils, \\*spatial, 2) -> (1, 1, \\*spatial): the root sum of squares of the coil images."""
    return ifftn_centered_t(kspace.detach(), spatial_dims=2).square().sum(dim=(0, -1)).sqrt()[None, None]


def _picture(path: Path, title: str, zero_filled: np.ndarray, image: np.ndarray, reference: np.ndarray | None) -> None:
    from matplotlib.figure import Figure

    panels = {"zero-filled": zero_filled, "reconstruction": image}
    if reference is not None:
        panels |= {"reference": reference, "error x 5": 5 * np.abs(image - reference)}
    figure = Figure(figsize=(3 * len(panels), 3.3), layout="constrained")
    figure.suptitle(title)
    brightest = float((image if reference is None else reference).max())
    for axes, (name, panel) in zip(np.ravel(figure.subplots(1, len(panels))), panels.items(), strict=True):
        axes.imshow(panel, cmap="gray", vmin=0.0, vmax=brightest)
        axes.set_title(name)
        axes.set_axis_off()
    figure.savefig(path, dpi=100, format="png")
