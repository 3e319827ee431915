"""The Partially-InvRes U-Net: every level is an invertible chain, pooling and interpolation between them are not.

Yamazaki, Rathour and Le, Invertible Residual Network with Regularization for Effective Medical Image Segmentation,
2021, arXiv 2103.09042, section 2; with the skeleton of the partially reversible U-Net of Bruegger, Baumgartner and
Konukoglu, 2019, arXiv 1906.06148.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn

from monai_invertible.autograd.sequential import InvertibleSequential
from monai_invertible.networks.blocks.linear_upsample import LinearUpsample
from monai_invertible.networks.blocks.segmentation_unet import SegmentationUNet
from monai_invertible.networks.layers.residual_coupling import residual_couplings

__all__ = ["PartiallyInvertibleUNet"]


class PartiallyInvertibleUNet(SegmentationUNet):
    """A U-Net whose levels are chains of additive couplings.

    Encoder: couplings; max pooling, 1x1x1 convolution to the next width. Decoder: 1x1x1 convolution, interpolation,
    plus the skip connection; couplings. Training keeps the outputs of the chains and what pooling and interpolation
    need, and recomputes each branch once: memory grows with the levels, not with the couplings in them. The error of
    the inversion is one rounding of the sum per half of a coupling.

    Deliberate decisions where the paper is silent: instance norm, two couplings of two pre-activation branches a level,
    skips are added (Bruegger et al.), the deepest level has couplings once.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the image (modalities).
        out_channels: channels of the logits (classes or regions).
        channels: widths of the levels, from the first to the deepest, at least 2.
        strides: between the levels; a number or one number per dimension each.
        kernel_size: of the convolutions in the branches, odd.
        num_res_units: couplings a level (in the encoder, and again in the decoder).
        act, norm, dropout, bias: of the convolution branches, as in MONAI's ``UNet``.
        branch: of the couplings; "convolution", or "layerwise" for a
            :class:`~monai_invertible.networks.layers.LayerwiseBranch`: twice a convolution, batch norm and activation
            that are inverted one by one. The widths must then be even.
        vae_size: size of the training patches; attaches the variational branch.
        backprop: "invert", "checkpoint" or "store": the same results, another memory.

    Shapes: ``(B, in_channels, *spatial)`` of any size to ``(B, out_channels, *spatial)``; in training with a
    variational branch ``(logits, l2, kl)``.

    Raises:
        ValueError: strides that do not fit the channels, an unknown ``backprop``, or an image of another number of
            channels or dimensions.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        strides: Sequence[Sequence[int] | int],
        *,
        kernel_size: Sequence[int] | int = 3,
        num_res_units: int = 2,
        act: tuple | str | None = ("leakyrelu", {"negative_slope": 0.01}),
        norm: tuple | str | None = ("instance", {"affine": True}),
        dropout: tuple | str | float | None = 0.0,
        bias: bool = False,
        branch: str = "convolution",
        vae_size: Sequence[int] | None = None,
        backprop: str = "invert",
    ) -> None:
        super().__init__(
            spatial_dims, in_channels, channels, strides, vae_size=vae_size, act=act, norm=norm, backprop=backprop
        )

        options: dict[str, Any] = dict(
            kernel_size=kernel_size, act=act, norm=norm, dropout=dropout, bias=bias, branch=branch, backprop=backprop
        )

        def couplings(width: int) -> InvertibleSequential:
            layers = residual_couplings(spatial_dims, width, num_res_units, **options)
            return InvertibleSequential(*layers, backprop=backprop)

        def down(i: int) -> nn.Module:
            pool = Pool[Pool.MAX, spatial_dims](kernel_size=self.strides[i], stride=self.strides[i])
            return nn.Sequential(pool, conv(channels[i], channels[i + 1], kernel_size=1))

        conv = Conv[Conv.CONV, spatial_dims]
        levels = range(len(self.strides))
        self.first = conv(in_channels, channels[0], kernel_size=3, padding=1)
        self.encoder = nn.ModuleList(couplings(width) for width in channels)
        self.down = nn.ModuleList(down(i) for i in levels)
        self.up = nn.ModuleList(
            LinearUpsample(spatial_dims, channels[i + 1], channels[i], stride=self.strides[i]) for i in levels
        )
        self.decoder = nn.ModuleList(couplings(channels[i]) for i in levels)
        self.last = conv(channels[0], out_channels, kernel_size=1)

    def segment(self, image: Tensor, with_bottleneck: bool) -> tuple[Tensor, Tensor | None]:
        x = self.encoder[0](self.first(image))
        skips = []
        for down, level in zip(self.down, list(self.encoder)[1:], strict=True):
            skips.append(x)
            x = level(down(x))
        bottleneck = x if with_bottleneck else None
        for up, level in reversed(list(zip(self.up, self.decoder, strict=True))):
            x = level(up(x) + skips.pop())
        return self.last(x), bottleneck
