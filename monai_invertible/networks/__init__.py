"""Layers (invertible maps), blocks (what is not invertible) and nets (architectures)."""

from __future__ import annotations

from monai_invertible.networks.blocks import ConvolutionalGRU, GatedResidualBlock
from monai_invertible.networks.layers import (
    AdditiveCoupling,
    ChannelSplit,
    GradientUpdate,
    OrthogonalConvolution,
    OrthogonalCoupling,
)
from monai_invertible.networks.nets import InvertibleRIM, MagnitudeUNet, RecurrentInferenceMachine, ZeroFilled

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
