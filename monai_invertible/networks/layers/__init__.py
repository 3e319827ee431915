"""Invertible layers: one map a file."""

from monai_invertible.networks.layers.coupling import AdditiveCoupling
from monai_invertible.networks.layers.splitting import ChannelSplit

__all__ = ["AdditiveCoupling", "ChannelSplit"]
