"""Interpolation, after a 1x1x1 convolution to the new width."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.blocks.upsample import UpSample

__all__ = ["LinearUpsample"]


class LinearUpsample(UpSample):
    """MONAI's ``UpSample`` without parameters in the interpolation, with the pixels' corners as in image resizing.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output; the convolution is left out if they are the same.
        stride: how much larger the output is, one number per dimension; or
        size: its size.

    Shapes: ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial * stride)``.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        stride: Sequence[int] | None = None,
        size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            spatial_dims,
            in_channels,
            out_channels,
            scale_factor=None if stride is None else tuple(stride),  # type: ignore[arg-type]
            size=None if size is None else tuple(size),  # type: ignore[arg-type]
            mode="nontrainable",
            pre_conv="default",
            align_corners=False,
        )
