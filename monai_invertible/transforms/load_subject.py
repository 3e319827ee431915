"""Load the modalities of one subject as the channels of one image, and its label, and check that they fit together.

What would spoil a training or a prediction without a word is an error here, which names the subject and the file.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms.transform import MapTransform
from monai.utils.misc import ensure_tuple

from monai_invertible.data.read_volume import check_same_grid, read_volume
from monai_invertible.transforms.subject_image import subject_image

__all__ = ["LoadSubjectd"]


class LoadSubjectd(MapTransform):
    """Replace paths by a float32 ``MetaTensor``: the image (modalities, \\*spatial), a label (1, \\*spatial).

    Affines (voxel to mm, RAS) are kept, so ``Orientationd``, ``Spacingd``, ``Invertd`` and ``SaveImaged`` work. The
    ``filename_or_obj`` is ``<folder of the first file>/<subject>.nii.gz``: a name, not a file, so that ``SaveImaged``
    and ``MetricsSaver`` name what they write by the subject. Nothing in ``meta`` depends on the file format, so
    subjects of different formats share a batch.

    A label without any foreground is allowed: subjects without a tumour exist. MONAI's Dice of an absent class is NaN,
    which means leave out, and ``RandCropByPosNegLabeld`` then warns and crops anywhere.

    Analyze files (``.hdr`` with ``.img``) store no orientation. nibabel takes their arrays to run to the left, forwards
    and upwards (LAS), with the origin in the middle of the volume. A prediction saved as NIfTI has that affine; the
    order of its voxels is that of the file. Which side is left cannot be known from such a file.

    Args:
        keys: the image (a path or a list of paths, one a modality), then labels (one path each). An item without a
            label is loaded without it.
        label_values: the values a label may have, for example (0, 1, 2, 4); None allows all.

    Raises:
        FileNotFoundError: if a file does not exist. OSError: if it cannot be read. ImportError: if a DICOM series is to
            be read without itk.
        ValueError: if an image is not one 3D volume of finite numbers, does not lie on the grid of the first modality
            (another shape, or a corner that is off by more than a tenth of a voxel), or a label has other values than
            ``label_values``.
    """

    def __init__(self, keys: Sequence[str] = ("image", "label"), label_values: Sequence[float] | None = None) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.label_values = None if label_values is None else tuple(label_values)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        paths = ensure_tuple(d[self.keys[0]])
        subject = str(d.get("subject", Path(paths[0]).name.partition(".")[0]))
        name = f"{Path(paths[0]).parent / subject}.nii.gz"
        first, affine = read_volume(paths[0], subject)
        image = np.empty((len(paths), *first.shape), dtype=np.float32)
        image[0] = first
        for channel, path in enumerate(paths[1:], start=1):
            volume, other = read_volume(path, subject)
            check_same_grid(paths[0], first.shape, affine, path, volume.shape, other, subject)
            image[channel] = volume
        d[self.keys[0]] = subject_image(image, affine, name)
        for key in self.keys[1:]:
            if key in d:
                volume, other = read_volume(d[key], subject)
                check_same_grid(paths[0], first.shape, affine, d[key], volume.shape, other, subject)
                self._check_values(d[key], volume, subject)
                d[key] = subject_image(volume[None], affine, name)
        return d

    def _check_values(self, path: str, label: np.ndarray, subject: str) -> None:
        if self.label_values is None or np.isin(label, self.label_values).all():
            return
        found = [f"{value:g}" for value in np.unique(label)]
        more = f", ... ({len(found)} values)" if len(found) > 10 else ""
        raise ValueError(
            f"{path}: labels must be among {list(self.label_values)}, got [{', '.join(found[:10])}{more}] "
            f"(subject {subject}). Take the original file, or set label_values to what the data set has."
        )
