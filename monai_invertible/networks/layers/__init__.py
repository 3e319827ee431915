"""Invertible layers: one map a file."""

from monai_invertible.networks.layers import factories as _factories  # noqa: F401 - registers the names
from monai_invertible.networks.layers.checkerboard_attention import CheckerboardAttention
from monai_invertible.networks.layers.coupling import AdditiveCoupling
from monai_invertible.networks.layers.gradient_update import GradientUpdate
from monai_invertible.networks.layers.invertible_batch_norm import InvertibleBatchNorm
from monai_invertible.networks.layers.invertible_convolution import InvertibleConvolution
from monai_invertible.networks.layers.invertible_leaky_relu import InvertibleLeakyReLU
from monai_invertible.networks.layers.invertible_unet_core import InvertibleUNetCore
from monai_invertible.networks.layers.layerwise import LayerwiseBranch
from monai_invertible.networks.layers.orthogonal_convolution import OrthogonalConvolution
from monai_invertible.networks.layers.orthogonal_coupling import OrthogonalCoupling
from monai_invertible.networks.layers.orthogonal_downsample import OrthogonalDownsample
from monai_invertible.networks.layers.pooling import BatchPooling, ChannelPooling
from monai_invertible.networks.layers.residual_coupling import ResidualCoupling
from monai_invertible.networks.layers.space_to_channel import SpaceToChannel
from monai_invertible.networks.layers.splitting import ChannelSplit, Swap

__all__ = [
    "AdditiveCoupling",
    "BatchPooling",
    "ChannelPooling",
    "ChannelSplit",
    "CheckerboardAttention",
    "GradientUpdate",
    "InvertibleBatchNorm",
    "InvertibleConvolution",
    "InvertibleLeakyReLU",
    "InvertibleUNetCore",
    "LayerwiseBranch",
    "OrthogonalConvolution",
    "OrthogonalCoupling",
    "OrthogonalDownsample",
    "ResidualCoupling",
    "SpaceToChannel",
    "Swap",
]
