"""How radiologists look at a volume."""

from __future__ import annotations

from typing import Any

import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.spatial.array import Orientation

__all__ = ["radiological"]


def radiological(image: torch.Tensor) -> Any:
    """(C, \\*spatial) with the axes right to left, posterior to anterior, inferior to superior: in a picture, the
    patient's right is on the left."""
    return Orientation(axcodes="LAS", labels=None)(MetaTensor(image))
