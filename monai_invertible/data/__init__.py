"""Data sets as their owners distribute them, and sample sets in the same formats."""

from __future__ import annotations

from monai_invertible.data.atomic_path import atomic_path
from monai_invertible.data.brats_sample import write_brats_sample
from monai_invertible.data.cifar10_datalist import cifar10_classes, cifar10_datalist
from monai_invertible.data.cifar10_sample import write_cifar10_sample
from monai_invertible.data.cityscapes_sample import write_cityscapes_sample
from monai_invertible.data.fastmri_dataset import fastmri_datalist, fastmri_masks, open_fastmri
from monai_invertible.data.fastmri_sample import write_fastmri_sample
from monai_invertible.data.hcp_datalist import hcp_datalist
from monai_invertible.data.hcp_sample import write_hcp_sample
from monai_invertible.data.image_pool import ImagePool
from monai_invertible.data.images_datalist import paired_images_datalist, pictures_datalist, unpaired_images_datalist
from monai_invertible.data.iseg_sample import write_iseg_sample
from monai_invertible.data.ismrmrd_header import parse_ismrmrd_header
from monai_invertible.data.label_colors import CITYSCAPES_COLORS, CITYSCAPES_VOID_COLORS
from monai_invertible.data.maps_sample import write_maps_sample
from monai_invertible.data.sample_anatomy import random_brain_slices, random_smooth_field
from monai_invertible.data.segmentation_datalist import brats_datalist, iseg_datalist
from monai_invertible.data.tensor_statistics import TensorStatistics
from monai_invertible.data.write_nifti import write_nifti

__all__ = [
    "CITYSCAPES_COLORS",
    "CITYSCAPES_VOID_COLORS",
    "ImagePool",
    "TensorStatistics",
    "atomic_path",
    "brats_datalist",
    "cifar10_classes",
    "cifar10_datalist",
    "fastmri_datalist",
    "fastmri_masks",
    "hcp_datalist",
    "iseg_datalist",
    "open_fastmri",
    "paired_images_datalist",
    "parse_ismrmrd_header",
    "pictures_datalist",
    "random_brain_slices",
    "random_smooth_field",
    "unpaired_images_datalist",
    "write_brats_sample",
    "write_cifar10_sample",
    "write_cityscapes_sample",
    "write_fastmri_sample",
    "write_hcp_sample",
    "write_iseg_sample",
    "write_maps_sample",
    "write_nifti",
]
