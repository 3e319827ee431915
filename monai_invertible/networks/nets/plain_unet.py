"""The baseline of the invertible U-Nets: the 3D U-Net of Cicek et al. 2016, arXiv 1606.06650, nothing invertible.

As Yamazaki et al. 2021 (arXiv 2103.09042) compare with: instance norm, leaky ReLU, max pooling, interpolation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from monai.networks.layers.factories import Conv, Pool
from monai.networks.nets.basic_unet import TwoConv
from torch import Tensor, nn

from monai_invertible.autograd.backprop import BackpropSwitch
from monai_invertible.autograd.checkpointing import run_checkpointed
from monai_invertible.networks.blocks.linear_upsample import LinearUpsample
from monai_invertible.networks.blocks.segmentation_unet import SegmentationUNet

__all__ = ["PlainUNet"]


class PlainUNet(SegmentationUNet, BackpropSwitch):
    """Two convolutions a level, max pooling down, interpolation and 1x1x1 convolution up, skips concatenated.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the image (modalities).
        out_channels: channels of the logits (classes or regions).
        channels: widths of the levels, from the first to the deepest.
        strides: between the levels; a number or one number per dimension each.
        act, norm, dropout, bias: as in MONAI's ``BasicUNet``, whose blocks these are.
        vae_size: size of the training patches; attaches the variational branch.
        backprop: "store" (plain autograd), or "checkpoint": each level keeps its input and is evaluated again.

    Shapes: ``(B, in_channels, *spatial)`` of any size to ``(B, out_channels, *spatial)``; in training with a
    variational branch ``(logits, l2, kl)``.

    Raises:
        ValueError: strides that do not fit the channels, an unknown ``backprop``, or an image of another number of
            channels or dimensions.
    """

    backprop_modes: ClassVar[tuple[str, ...]] = ("checkpoint", "store")

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        strides: Sequence[Sequence[int] | int],
        *,
        act: tuple | str = ("leakyrelu", {"negative_slope": 0.01}),
        norm: tuple | str = ("instance", {"affine": True}),
        dropout: tuple | float = 0.0,
        bias: bool = True,
        vae_size: Sequence[int] | None = None,
        backprop: str = "store",
    ) -> None:
        super().__init__(
            spatial_dims, in_channels, channels, strides, vae_size=vae_size, act=act, norm=norm, backprop=backprop
        )
        self.backprop = backprop

        def two(source: int, target: int) -> nn.Module:
            return TwoConv(spatial_dims, source, target, act, norm, bias, dropout)

        levels = range(len(self.strides))
        pool = Pool[Pool.MAX, spatial_dims]
        self.encoder = nn.ModuleList(two(a, b) for a, b in zip((in_channels, *channels), channels, strict=False))
        self.down = nn.ModuleList(pool(kernel_size=step, stride=step) for step in self.strides)
        self.up = nn.ModuleList(
            LinearUpsample(spatial_dims, channels[i + 1], channels[i], stride=self.strides[i]) for i in levels
        )
        self.decoder = nn.ModuleList(two(2 * channels[i], channels[i]) for i in levels)
        self.last = Conv[Conv.CONV, spatial_dims](channels[0], out_channels, kernel_size=1)

    def segment(self, image: Tensor, with_bottleneck: bool) -> tuple[Tensor, Tensor | None]:
        x = self._run(self.encoder[0], image)
        skips = []
        for down, level in zip(self.down, list(self.encoder)[1:], strict=True):
            skips.append(x)
            x = self._run(level, down(x))
        bottleneck = x if with_bottleneck else None
        for up, level in reversed(list(zip(self.up, self.decoder, strict=True))):
            x = self._run(level, torch.cat([skips.pop(), up(x)], dim=1))
        return self.last(x), bottleneck

    def _run(self, level: nn.Module, x: Tensor) -> Tensor:
        return level(x) if self.backprop == "store" else run_checkpointed(level, x)
