"""How exact the inverse and the gradients of an invertible network are."""

from __future__ import annotations

from .gradient_error import gradient_error
from .inversion_error import inversion_error

__all__ = ["gradient_error", "inversion_error"]
