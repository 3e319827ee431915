r"""The Fully-InvRes U-Net: from the first convolution to the last, one invertible chain over a stack of tensors.

Yamazaki, Rathour and Le, Invertible Residual Network with Regularization for Effective Medical Image Segmentation,
2021, arXiv 2103.09042, section 2; with the skeleton of the iUNet of Etmann, Ke and Schoenlieb, 2020, arXiv 2005.05220.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from math import prod
from typing import Any

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from monai_invertible.autograd.module import Inverse, InvertibleModule, as_tuple
from monai_invertible.autograd.sequential import InvertibleSequential
from monai_invertible.networks.blocks.segmentation_unet import SegmentationUNet, stride_tuples
from monai_invertible.networks.layers.orthogonal_downsample import OrthogonalDownsample
from monai_invertible.networks.layers.residual_coupling import residual_couplings
from monai_invertible.networks.layers.space_to_channel import SpaceToChannel
from monai_invertible.networks.layers.splitting import ChannelSplit

__all__ = ["FullyInvertibleUNet"]


class FullyInvertibleUNet(SegmentationUNet):
    r"""A U-Net whose levels and the ways between them are one invertible chain.

    Encoder, at each level: couplings on the last tensor of the stack, then :math:`(\dots, x) \mapsto (\dots, x_{skip},
    \mathrm{down}(x_{rest}))`: part of the channels stays behind as the skip connection, the rest is downsampled
    without loss. Decoder: the same backwards, :math:`(\dots, x_{skip}, y) \mapsto (\dots, [x_{skip};\,
    \mathrm{down}^{-1}(y)])`, then couplings. A convolution before and one after the chain are all that is not
    invertible.

    Training keeps the chain's output and the input image, however many levels and couplings there are, and recomputes
    each branch once. The error of the inversion is one rounding of the sum per half of a coupling. ``core`` is the
    chain; ``core.inverse`` gives back its input.

    Deliberate decisions where the paper is silent: two couplings of two pre-activation branches a level (the form of
    Bruegger et al. 2019, with instance norm as the paper's text has it); the resampling has no parameters unless asked
    for (the abstract says learned, section 2 pixel shuffle); the widths of the levels follow the iUNet's rule: of the
    channels :math:`c_i`, those not needed for :math:`c_{i+1} / m` stay as the skip, :math:`m = \prod` stride.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the image (modalities).
        out_channels: channels of the logits (classes or regions).
        channels: widths of the levels, from the first to the deepest. A split gives multiples of the stride's product,
            so a width may have to differ: a warning says so, and ``network.channels`` are the real ones.
        strides: between the levels; a number or one number per dimension each.
        kernel_size: of the convolutions in the branches, odd.
        num_res_units: couplings a level (in the encoder, and again in the decoder).
        act, norm, dropout, bias: of the branches, as in MONAI's ``UNet``.
        downsample: "squeeze" (:class:`SpaceToChannel`), or the orthogonal map, "cayley", "matrix_exp" or
            "householder", of a learned :class:`OrthogonalDownsample`.
        vae_size: size of the training patches; attaches the variational branch.
        backprop: "invert", "checkpoint" or "store": the same results, another memory.

    Shapes: ``(B, in_channels, *spatial)`` of any size to ``(B, out_channels, *spatial)``; in training with a
    variational branch ``(logits, l2, kl)``.

    Raises:
        ValueError: strides or widths that make no U-Net, an unknown ``downsample`` or ``backprop``, or an image of
            another number of channels or dimensions.
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
        downsample: str = "squeeze",
        vae_size: Sequence[int] | None = None,
        backprop: str = "invert",
    ) -> None:
        steps = stride_tuples(type(self).__name__, spatial_dims, channels, strides)
        splits = level_splits(channels, steps)
        widths = [sum(splits[0]), *(rest * prod(step) for (_, rest), step in zip(splits, steps, strict=True))]
        if widths != list(channels):
            warnings.warn(
                f"FullyInvertibleUNet: channels={tuple(channels)} cannot be had with strides={tuple(strides)}, since a "
                f"split gives each level a multiple of its stride's product. The levels have channels={tuple(widths)}.",
                stacklevel=2,
            )
        super().__init__(
            spatial_dims, in_channels, widths, steps, vae_size=vae_size, act=act, norm=norm, backprop=backprop
        )

        options: dict[str, Any] = dict(kernel_size=kernel_size, act=act, norm=norm, dropout=dropout, bias=bias)

        def couplings(width: int) -> Sequence[InvertibleModule]:
            return residual_couplings(spatial_dims, width, num_res_units, **options)

        def down(width: int, step: tuple[int, ...]) -> InvertibleModule:
            if downsample == "squeeze":
                return SpaceToChannel(step)
            return OrthogonalDownsample(width, step, orthogonal_map=downsample)

        encoder, decoder = [*couplings(widths[0])], []
        for (skip, rest), step, width in zip(splits, steps, widths[1:], strict=True):
            encoder += [*leave(skip, rest), down(rest, step), *couplings(width)]
        for (skip, rest), step, width in reversed(list(zip(splits, steps, widths, strict=False))):
            back = [Inverse(layer) for layer in (down(rest, step), *reversed(leave(skip, rest)))]
            decoder += [*back, *couplings(width)]
        outer = halves(widths[0])  # the chain takes and returns them as two tensors, which are freed one by one
        encoder.insert(0, Inverse(ChannelSplit(outer)))
        decoder.append(ChannelSplit(outer))
        self.core = InvertibleSequential(
            InvertibleSequential(*encoder, backprop=backprop),
            InvertibleSequential(*decoder, backprop=backprop),
            backprop=backprop,
        )
        conv = Conv[Conv.CONV, spatial_dims]
        self.first = nn.ModuleList(conv(in_channels, width, kernel_size=3, padding=1) for width in outer)
        self.last = nn.ModuleList(
            conv(width, out_channels, kernel_size=1, bias=i == 0) for i, width in enumerate(outer)
        )

    def segment(self, image: Tensor, with_bottleneck: bool) -> tuple[Tensor, Tensor | None]:
        state = tuple(conv(image) for conv in self.first)
        bottleneck = None
        if with_bottleneck:  # the branch keeps it, so here the one chain is two
            encoder, decoder = self.core
            stack = as_tuple(encoder(*state))
            bottleneck = stack[-1]
            state = decoder(*stack)
        else:
            state = self.core(*state)
        return sum(conv(part) for conv, part in zip(self.last, state, strict=True)), bottleneck


def leave(skip: int, rest: int) -> list[InvertibleModule]:
    """Split a level's channels in the part that stays and the rest, the last tensor.

    If the first half stays as a whole, only the second is split: then no tensor is as large as the level, and the
    halves, which couplings replace one after the other, are freed one after the other.
    """
    first, second = halves(skip + rest)
    if rest > second:
        return [ChannelSplit((skip, rest))]
    return [ChannelSplit((first, second)), *([ChannelSplit((second - rest, rest))] if rest < second else [])]


def halves(width: int) -> tuple[int, int]:
    """As a coupling splits."""
    return width // 2, width - width // 2


def level_splits(channels: Sequence[int], strides: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """At the end of each level but the deepest, how many channels stay as the skip, and how many go down."""
    splits, width = [], channels[0]
    for wanted, step in zip(channels[1:], strides, strict=True):
        if width < 2:
            raise ValueError(
                f"FullyInvertibleUNet: a level needs at least two channels to split, got channels={tuple(channels)}. "
                "Use more channels."
            )
        rest = min(max(round(wanted / prod(step)), 1), width - 1)
        splits.append((width - rest, rest))
        width = rest * prod(step)
    return splits
