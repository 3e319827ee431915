"""The physics of the measurement: MRI forward operators, the gradient of the data term, diffusion tensors."""

from __future__ import annotations

from monai_invertible.operators.diffusion_tensor import (
    TENSOR_COMPONENTS,
    fractional_anisotropy,
    is_positive_definite,
    mean_diffusivity,
    principal_direction,
    tensor_matrices,
)
from monai_invertible.operators.fourier_sampling import FourierSampling
from monai_invertible.operators.measurement import kspace_scale, magnitude, prepare_measurement, sampling_mask

__all__ = [
    "FourierSampling",
    "TENSOR_COMPONENTS",
    "fractional_anisotropy",
    "is_positive_definite",
    "kspace_scale",
    "magnitude",
    "mean_diffusivity",
    "prepare_measurement",
    "principal_direction",
    "sampling_mask",
    "tensor_matrices",
]
