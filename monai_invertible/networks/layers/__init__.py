"""Invertible layers: one map a file."""

from monai_invertible.networks.layers.coupling import AdditiveCoupling
from monai_invertible.networks.layers.gradient_update import GradientUpdate
from monai_invertible.networks.layers.orthogonal_convolution import OrthogonalConvolution
from monai_invertible.networks.layers.orthogonal_coupling import OrthogonalCoupling
from monai_invertible.networks.layers.splitting import ChannelSplit

__all__ = ["AdditiveCoupling", "ChannelSplit", "GradientUpdate", "OrthogonalConvolution", "OrthogonalCoupling"]
