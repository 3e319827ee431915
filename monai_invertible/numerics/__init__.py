"""How exact the inverse and the gradients of an invertible network are."""

from __future__ import annotations

from monai_invertible.numerics.alpha import batch_norm_alpha, leaky_relu_alpha, measure_alpha
from monai_invertible.numerics.gradient_error import gradient_error
from monai_invertible.numerics.inversion_error import inversion_error

__all__ = ["batch_norm_alpha", "gradient_error", "inversion_error", "leaky_relu_alpha", "measure_alpha"]
