"""Remove the slow change of brightness that receive coils leave in an image, by N4.

Source: Tustison et al., N4ITK: Improved N3 Bias Correction, IEEE TMI 29, 2010; SimpleITK's implementation.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import MapTransform
from monai.utils.module import optional_import
from monai.utils.type_conversion import convert_to_dst_type

__all__ = ["CorrectBiasFieldd"]


class CorrectBiasFieldd(MapTransform):
    """Divide every channel of (C, \\*spatial) by its smooth bias field: x' = x / exp(field), where x > 0.

    The field is estimated from the foreground (x > 0) of the shrunk channel and evaluated at full size. Voxels of the
    background stay as they are, as does a channel without foreground. Affine and type are kept. It takes seconds a
    channel: put it before the cache, or run it once.

    Args:
        keys: the images, 2D or 3D.
        shrink: how many times fewer voxels along each axis the estimate uses; at least 16 voxels are kept.
        iterations: at most so many in each level; the mesh of the spline is twice as fine from level to level.
        allow_missing_keys: as in MONAI.

    Raises:
        ImportError: if SimpleITK is not installed.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        shrink: int = 4,
        iterations: Sequence[int] = (50, 50, 50, 50),
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if not optional_import("SimpleITK")[1]:
            raise ImportError("CorrectBiasFieldd: N4 needs SimpleITK, got none. pip install SimpleITK.")
        if shrink < 1 or not iterations:
            raise ValueError(
                "CorrectBiasFieldd: shrink must be at least 1 and iterations have at least one level, got "
                f"shrink={shrink}, iterations={tuple(iterations)}. Use shrink=4, iterations=(50, 50, 50, 50)."
            )
        self.shrink = shrink
        self.iterations = tuple(iterations)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            image = d[key]
            spacing = image.pixdim.tolist() if isinstance(image, MetaTensor) else [1.0] * (image.ndim - 1)
            channels = np.asarray(torch.as_tensor(image).float().cpu())
            corrected = np.stack([self._correct(channel, spacing) for channel in channels])
            d[key] = convert_to_dst_type(corrected, image)[0]
        return d

    def _correct(self, channel: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        import SimpleITK as sitk

        foreground = channel > 0
        if not foreground.any():
            return channel
        image = sitk.GetImageFromArray(channel)
        mask = sitk.GetImageFromArray(foreground.astype(np.uint8))
        for volume in (image, mask):
            volume.SetSpacing([float(size) for size in reversed(spacing)])  # SimpleITK: last axis first
        factors = [max(1, min(self.shrink, size // 16)) for size in image.GetSize()]
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations(self.iterations)
        n4.Execute(sitk.Shrink(image, factors), sitk.Shrink(mask, factors))
        field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image))
        return np.where(foreground, channel / np.exp(field), channel)
