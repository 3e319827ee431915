"""Write the label maps that a segmentation network has predicted, each in the geometry of its subject."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from monai_invertible.data import write_nifti
from monai_invertible.handlers.engine_items import engine_items
from monai_invertible.handlers.refuse_existing import refuse_existing

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["SegmentationSaver"]


class SegmentationSaver:
    """Write ``output_dir/SUBJECT.nii.gz`` from an evaluator's "pred", a label map (1, \\*spatial): uint8, with the
    affine that it has. ``Invertd`` in the postprocessing has brought it back to the subject's own voxels.

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
            file = self.output_dir / f"{name}.nii.gz"
            refuse_existing(self, [file])
            label = item["pred"].cpu()
            write_nifti(file, label[0].numpy().astype(np.uint8), label.affine.numpy())
            self._written.add(name)
