"""The branch of a residual coupling: norm, activation, dropout, convolution."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.blocks.acti_norm import ADN
from monai.networks.layers.convutils import same_padding
from monai.networks.layers.factories import Conv
from torch import nn

__all__ = ["PreActivationConvolution"]


class PreActivationConvolution(nn.Sequential):
    """``conv(dropout(act(norm(x))))``, of the size of its input.

    He et al., Identity Mappings in Deep Residual Networks, 2016; the branch of the partially reversible U-Net of
    Bruegger et al. 2019. The order matters in a coupling: the norm reads the state, so the activation may work in
    place on what the norm returned, and one tensor serves as its result and as the convolution's input.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd, one number or one per dimension.
        act: activation, as in MONAI's networks.
        norm: normalisation, as in MONAI's networks; None leaves it out, then ``act`` must not work in place.
        dropout: probability or MONAI's name and arguments.
        bias: of the convolution.

    Shapes: ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: Sequence[int] | int = 3,
        act: tuple | str | None = ("leakyrelu", {"negative_slope": 0.01}),
        norm: tuple | str | None = ("instance", {"affine": True}),
        dropout: tuple | str | float | None = 0.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if dropout:
            self.adn = ADN("NAD", in_channels, act, norm, spatial_dims, dropout, dropout_dim=1)
        else:
            self.adn = ADN("NA", in_channels, act, norm, spatial_dims)
        kernel = tuple(kernel_size) if isinstance(kernel_size, Sequence) else kernel_size
        self.conv = Conv[Conv.CONV, spatial_dims](
            in_channels, out_channels, kernel_size=kernel, padding=same_padding(kernel), bias=bias
        )
