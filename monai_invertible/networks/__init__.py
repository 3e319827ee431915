"""Layers (invertible maps), blocks (what is not invertible) and nets (architectures)."""

from __future__ import annotations

from .blocks import ConvolutionalGRU, GatedResidualBlock
from .layers import AdditiveCoupling, ChannelSplit, GradientUpdate, OrthogonalConvolution, OrthogonalCoupling
from .nets import InvertibleRIM, MagnitudeUNet, RecurrentInferenceMachine, ZeroFilled

__all__ = [
    "AdditiveCoupling",
    "ChannelSplit",
    "ConvolutionalGRU",
    "GatedResidualBlock",
    "GradientUpdate",
    "InvertibleRIM",
    "MagnitudeUNet",
    "OrthogonalConvolution",
    "OrthogonalCoupling",
    "RecurrentInferenceMachine",
    "ZeroFilled",
]
