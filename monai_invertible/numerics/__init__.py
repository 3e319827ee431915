"""How exact the inverse and the gradients of an invertible network are."""

from __future__ import annotations

from monai_invertible.numerics.gradient_error import gradient_error
from monai_invertible.numerics.inversion_error import inversion_error

__all__ = ["gradient_error", "inversion_error"]
