r"""The Fully-InvRes U-Net: from the first convolution to the last, one invertible chain over a stack of tensors.

Yamazaki, Rathour and Le, Invertible Residual Network with Regularization for Effective Medical Image Segmentation,
2021, arXiv 2103.09042, section 2; with the skeleton of the iUNet of Etmann, Ke and Schoenlieb, 2020, arXiv 2005.05220.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from monai_invertible.autograd.module import as_tuple
from monai_invertible.networks.blocks.segmentation_unet import SegmentationUNet, stride_tuples
from monai_invertible.networks.layers.invertible_unet_core import InvertibleUNetCore, halves
from monai_invertible.networks.layers.residual_coupling import residual_couplings

__all__ = ["FullyInvertibleUNet"]


class FullyInvertibleUNet(SegmentationUNet):
    r"""A U-Net whose levels and the ways between them are one invertible chain, an
    :class:`~monai_invertible.networks.layers.InvertibleUNetCore`: at the end of each level part of the channels stays
    behind as the skip connection, the rest is downsampled without loss. A convolution before and one after the chain
    are all that is not invertible.

    Training keeps the chain's output and the input image, however many levels and couplings there are, and recomputes
    each branch once. The error of the inversion is one rounding of the sum per half of a coupling. ``core`` is the
    chain; ``core.inverse`` gives back its input.

    Deliberate decisions where the paper is silent: two couplings of two pre-activation branches a level (the form of
    Bruegger et al. 2019, with instance norm as the paper's text has it); the resampling has no parameters unless asked
    for (the abstract says learned, section 2 pixel shuffle).

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the image (modalities).
        out_channels: channels of the logits (classes or regions).
        channels: widths of the levels, from the first to the deepest. A split gives multiples of the stride's product,
            so a width may have to differ: a warning says so, and ``network.channels`` are the real ones.
        strides: between the levels; a number or one number per dimension each.
        kernel_size: of the convolutions in the branches, odd.
        num_res_units: couplings a level (in the encoder, and again in the decoder).
        act, norm, dropout, bias: of the convolution branches, as in MONAI's ``UNet``.
        branch: of the couplings; "convolution", or "layerwise" for a
            :class:`~monai_invertible.networks.layers.LayerwiseBranch`: twice a convolution, batch norm and activation
            that are inverted one by one. The widths must then be even.
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
        branch: str = "convolution",
        downsample: str = "squeeze",
        vae_size: Sequence[int] | None = None,
        backprop: str = "invert",
    ) -> None:
        steps = stride_tuples(type(self).__name__, spatial_dims, channels, strides)
        couplings = partial(
            residual_couplings,
            spatial_dims,
            count=num_res_units,
            kernel_size=kernel_size,
            act=act,
            norm=norm,
            dropout=dropout,
            bias=bias,
            branch=branch,
            backprop=backprop,
        )
        core = InvertibleUNetCore(channels, steps, couplings, downsample=downsample, backprop=backprop)
        super().__init__(
            spatial_dims, in_channels, core.channels, steps, vae_size=vae_size, act=act, norm=norm, backprop=backprop
        )
        self.core = core
        outer = halves(core.channels[0])
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
