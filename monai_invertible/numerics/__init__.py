"""How exact the inverse and the gradients of an invertible network are."""

from __future__ import annotations

from monai_invertible.numerics.alpha import batch_norm_alpha, leaky_relu_alpha, measure_alpha
from monai_invertible.numerics.gradient_error import gradient_error
from monai_invertible.numerics.inversion_error import inversion_error
from monai_invertible.numerics.precision import PRECISIONS, in_precision
from monai_invertible.numerics.reconstruction_report import LayerSNR, ReconstructionReport
from monai_invertible.numerics.reconstruction_snr import reconstruction_snr

__all__ = [
    "PRECISIONS",
    "LayerSNR",
    "ReconstructionReport",
    "batch_norm_alpha",
    "gradient_error",
    "in_precision",
    "inversion_error",
    "leaky_relu_alpha",
    "measure_alpha",
    "reconstruction_snr",
]
