"""Dictionary transforms, to be used in ``monai.transforms.Compose``."""

from __future__ import annotations

from monai_invertible.transforms.correct_bias_field import CorrectBiasFieldd
from monai_invertible.transforms.crop_kspace import CropKspaced
from monai_invertible.transforms.fill_background import FillBackgroundd
from monai_invertible.transforms.load_diffusion_tensor import LoadDiffusionTensord
from monai_invertible.transforms.load_fastmri import LoadFastMRId
from monai_invertible.transforms.load_pictures import LoadPicturesd
from monai_invertible.transforms.load_subject import LoadSubjectd
from monai_invertible.transforms.patch_weight import PatchWeightd
from monai_invertible.transforms.rand_partner import RandPartnerd
from monai_invertible.transforms.rand_weighted_patch import RandWeightedPatchd
from monai_invertible.transforms.reference_image import ReferenceImaged
from monai_invertible.transforms.regions_to_label import RegionsToLabeld
from monai_invertible.transforms.standardize_tensor import StandardizeTensord
from monai_invertible.transforms.undersample_kspace import UndersampleKspaced

__all__ = [
    "CorrectBiasFieldd",
    "CropKspaced",
    "FillBackgroundd",
    "LoadDiffusionTensord",
    "LoadFastMRId",
    "LoadPicturesd",
    "LoadSubjectd",
    "PatchWeightd",
    "RandPartnerd",
    "RandWeightedPatchd",
    "ReferenceImaged",
    "RegionsToLabeld",
    "StandardizeTensord",
    "UndersampleKspaced",
]
