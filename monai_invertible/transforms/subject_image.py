"""The image of a subject as MONAI's transforms take it, the same meta data from every file format."""

from __future__ import annotations

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

__all__ = ["subject_image"]


def subject_image(array: np.ndarray, affine: np.ndarray, name: str) -> MetaTensor:
    """A channel-first array with what MONAI's transforms and writers want to know.

    Args:
        array: (C, \\*spatial).
        affine: from voxels to mm in RAS, (4, 4).
        name: a file name; ``SaveImaged`` and ``MetricsSaver`` name by it what they write.
    """
    meta = {
        "filename_or_obj": name,
        "original_affine": affine,
        "spatial_shape": np.array(array.shape[1:]),
        "original_channel_dim": float("nan"),  # MONAI: the file has no channels
        "space": "RAS",
    }
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(array)), affine=torch.from_numpy(affine), meta=meta)
