"""Plain units of convolution, batch normalisation and activation: the branch of RevNet and i-RevNet."""

from __future__ import annotations

from monai.networks.layers.factories import Conv, Norm
from torch import nn

__all__ = ["ConvolutionBranch"]


class ConvolutionBranch(nn.Sequential):
    """``units`` times 3 x 3 convolution without bias, batch normalisation, leaky ReLU (in place).

    Args:
        spatial_dims: 1, 2 or 3.
        channels: of input and output.
        units: how many.
        negative_slope: of the activations.

    Shapes: ``(B, channels, *spatial)`` to the same.
    """

    def __init__(self, spatial_dims: int, channels: int, units: int = 2, *, negative_slope: float = 0.2) -> None:
        layers: list[nn.Module] = []
        for _ in range(units):
            layers += [
                Conv[Conv.CONV, spatial_dims](channels, channels, kernel_size=3, padding=1, bias=False),
                Norm[Norm.BATCH, spatial_dims](channels),
                nn.LeakyReLU(negative_slope, inplace=True),
            ]
        super().__init__(*layers)
