"""Dictionary transforms, to be used in ``monai.transforms.Compose``."""

from __future__ import annotations

from monai_invertible.transforms.correct_bias_field import CorrectBiasFieldd
from monai_invertible.transforms.crop_kspace import CropKspaced
from monai_invertible.transforms.load_fastmri import LoadFastMRId
from monai_invertible.transforms.load_subject import LoadSubjectd
from monai_invertible.transforms.reference_image import ReferenceImaged
from monai_invertible.transforms.regions_to_label import RegionsToLabeld
from monai_invertible.transforms.undersample_kspace import UndersampleKspaced

__all__ = [
    "CorrectBiasFieldd",
    "CropKspaced",
    "LoadFastMRId",
    "LoadSubjectd",
    "ReferenceImaged",
    "RegionsToLabeld",
    "UndersampleKspaced",
]
