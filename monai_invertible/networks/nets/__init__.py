"""Architectures, one a file."""

from __future__ import annotations

from .invertible_rim import InvertibleRIM
from .magnitude_unet import MagnitudeUNet
from .recurrent_inference_machine import RecurrentInferenceMachine
from .zero_filled import ZeroFilled

__all__ = ["InvertibleRIM", "MagnitudeUNet", "RecurrentInferenceMachine", "ZeroFilled"]
