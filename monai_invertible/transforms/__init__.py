"""Dictionary transforms, to be used in ``monai.transforms.Compose``."""

from __future__ import annotations

from monai_invertible.transforms.crop_kspace import CropKspaced
from monai_invertible.transforms.load_fastmri import LoadFastMRId
from monai_invertible.transforms.reference_image import ReferenceImaged
from monai_invertible.transforms.undersample_kspace import UndersampleKspaced

__all__ = ["CropKspaced", "LoadFastMRId", "ReferenceImaged", "UndersampleKspaced"]
