"""The way into and out of the features of a ResNet generator: down and up by four.

Johnson et al. 2016; Zhu et al., CycleGAN, 2017, appendix 7.2; used by RevGAN around its core.
"""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn

__all__ = ["TranslationDecoder", "TranslationEncoder"]


class TranslationEncoder(nn.Sequential):
    """7x7 convolution, then two 3x3 convolutions of stride 2, each with instance norm and ReLU.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the image.
        channels: n, the width after the first convolution; the features have 4 n.

    Shapes: ``(B, in_channels, *spatial)`` to ``(B, 4 n, *spatial / 4)``.

    Raises:
        ValueError: a size that is no multiple of 4, or below 8.
    """

    def __init__(self, spatial_dims: int, in_channels: int, channels: int) -> None:
        conv, norm = Conv[Conv.CONV, spatial_dims], Norm[Norm.INSTANCE, spatial_dims]
        layers = [conv(in_channels, channels, 7, padding=3, padding_mode="reflect"), norm(channels), nn.ReLU()]
        for width in (channels, 2 * channels):
            layers += [conv(width, 2 * width, 3, stride=2, padding=1), norm(2 * width), nn.ReLU()]
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the image."""
        if not torch.jit.is_tracing() and any(n % 4 or n < 8 for n in x.shape[2:]):  # type: ignore[attr-defined]
            raise ValueError(
                f"TranslationEncoder: every size must be a multiple of 4, at least 8, got {tuple(x.shape[2:])}. Resize "
                "or pad the images, for example with monai.transforms.DivisiblePad(4)."
            )
        return super().forward(x)


class TranslationDecoder(nn.Sequential):
    """Two transposed 3x3 convolutions of stride 2 with instance norm and ReLU, then a 7x7 convolution and tanh.

    Args:
        spatial_dims: 1, 2 or 3.
        out_channels: channels of the image.
        channels: n; the features have 4 n channels.

    Shapes: ``(B, 4 n, *spatial / 4)`` to ``(B, out_channels, *spatial)``, in [-1, 1].
    """

    def __init__(self, spatial_dims: int, out_channels: int, channels: int) -> None:
        up, norm = Conv[Conv.CONVTRANS, spatial_dims], Norm[Norm.INSTANCE, spatial_dims]
        layers: list[nn.Module] = []
        for width in (4 * channels, 2 * channels):
            half = width // 2
            layers += [up(width, half, 3, stride=2, padding=1, output_padding=1), norm(half), nn.ReLU()]
        last = Conv[Conv.CONV, spatial_dims](channels, out_channels, 7, padding=3, padding_mode="reflect")
        super().__init__(*layers, last, nn.Tanh())
