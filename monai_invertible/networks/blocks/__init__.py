"""What is not invertible: the branches of couplings, and the parts of the baselines."""

from __future__ import annotations

from monai_invertible.networks.blocks.gated_recurrent_unit import ConvolutionalGRU
from monai_invertible.networks.blocks.gated_residual_block import GatedResidualBlock

__all__ = ["ConvolutionalGRU", "GatedResidualBlock"]
