"""The physics of the measurement: MRI forward operators and the gradient of the data term."""

from __future__ import annotations

from monai_invertible.operators.fourier_sampling import FourierSampling
from monai_invertible.operators.measurement import kspace_scale, magnitude, prepare_measurement, sampling_mask

__all__ = ["FourierSampling", "kspace_scale", "magnitude", "prepare_measurement", "sampling_mask"]
