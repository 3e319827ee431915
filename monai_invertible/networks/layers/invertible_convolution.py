"""A convolution that can be inverted: the smallest coupling.

Hascoet et al., Layer-Wise Invertibility for Extreme Memory Cost Reduction, 2019, arXiv 1910.11127, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.layers.convutils import same_padding
from monai.networks.layers.factories import Conv

from monai_invertible.networks.layers.coupling import AdditiveCoupling

__all__ = ["InvertibleConvolution"]


class InvertibleConvolution(AdditiveCoupling):
    r"""An additive coupling of two single convolutions without bias: each half of the channels is moved by a
    convolution of the other.

    ``forward``: :math:`y_1 = x_1 + F * x_2,\; y_2 = x_2 + G * y_1`.
    ``inverse``: :math:`x_2 = y_2 - G * y_1,\; x_1 = y_1 - F * x_2`.

    In a chain: saves nothing, recomputes each convolution once. Error: one rounding of the sum per half.

    Args:
        spatial_dims: 1, 2 or 3.
        channels: of the state, at least 2; the smaller half of an odd number is :math:`x_1`.
        kernel_size: odd, one number or one per dimension.

    Shapes: ``(B, channels, *spatial)`` to the same.

    Raises:
        ValueError: fewer than two channels.
    """

    def __init__(self, spatial_dims: int, channels: int, *, kernel_size: Sequence[int] | int = 3) -> None:
        if channels < 2:
            raise ValueError(
                f"InvertibleConvolution: channels must be at least 2 to split, got {channels}. Use more channels."
            )
        first, second = channels // 2, channels - channels // 2
        kernel = tuple(kernel_size) if isinstance(kernel_size, Sequence) else kernel_size
        conv, padding = Conv[Conv.CONV, spatial_dims], same_padding(kernel)
        super().__init__(
            conv(second, first, kernel_size=kernel, padding=padding, bias=False),
            conv(first, second, kernel_size=kernel, padding=padding, bias=False),
            split=(first, second),
        )
