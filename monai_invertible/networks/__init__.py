"""Layers (invertible maps), blocks (what is not invertible) and nets (architectures)."""

from __future__ import annotations

from monai_invertible.networks.blocks import (
    ConvolutionalGRU,
    GatedResidualBlock,
    LinearUpsample,
    PreActivationConvolution,
    SegmentationUNet,
    VariationalBranch,
)
from monai_invertible.networks.layers import (
    AdditiveCoupling,
    ChannelSplit,
    GradientUpdate,
    OrthogonalConvolution,
    OrthogonalCoupling,
    OrthogonalDownsample,
    ResidualCoupling,
    SpaceToChannel,
)
from monai_invertible.networks.nets import (
    FullyInvertibleUNet,
    InvertibleRIM,
    MagnitudeUNet,
    PartiallyInvertibleUNet,
    PlainUNet,
    RecurrentInferenceMachine,
    ZeroFilled,
)

__all__ = [
    "AdditiveCoupling",
    "ChannelSplit",
    "ConvolutionalGRU",
    "FullyInvertibleUNet",
    "GatedResidualBlock",
    "GradientUpdate",
    "InvertibleRIM",
    "LinearUpsample",
    "MagnitudeUNet",
    "OrthogonalConvolution",
    "OrthogonalCoupling",
    "OrthogonalDownsample",
    "PartiallyInvertibleUNet",
    "PlainUNet",
    "PreActivationConvolution",
    "RecurrentInferenceMachine",
    "ResidualCoupling",
    "SegmentationUNet",
    "SpaceToChannel",
    "VariationalBranch",
    "ZeroFilled",
]
