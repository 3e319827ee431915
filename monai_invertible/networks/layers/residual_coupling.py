"""The coupling of the invertible residual U-Nets: both branches are pre-activation convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from monai_invertible.networks.blocks.pre_activation_convolution import PreActivationConvolution
from monai_invertible.networks.layers.coupling import AdditiveCoupling
from monai_invertible.networks.layers.layerwise import check_branch, layerwise_branch

__all__ = ["ResidualCoupling", "residual_couplings"]


class ResidualCoupling(AdditiveCoupling):
    r"""An additive coupling of two halves of the channels, with one convolution in each branch.

    ``forward``: :math:`y_1 = x_1 + F(x_2),\; y_2 = x_2 + G(y_1)`.
    ``inverse``: :math:`x_2 = y_2 - G(y_1),\; x_1 = y_1 - F(x_2)`.
    F and G: :class:`~monai_invertible.networks.blocks.PreActivationConvolution`.

    Yamazaki et al. 2021, arXiv 2103.09042, eq. 1-2, in the form of Bruegger et al. 2019, arXiv 1906.06148. In a chain:
    saves nothing, recomputes each branch once. Error: one rounding of the sum per half.

    Args:
        spatial_dims: 1, 2 or 3.
        channels: of the state, at least 2; the smaller half of an odd number is :math:`x_1`.
        kernel_size, act, norm, dropout, bias: of the branches.

    Shapes: ``(B, channels, *spatial)`` to the same.

    Raises:
        ValueError: fewer than two channels.
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        *,
        kernel_size: Sequence[int] | int = 3,
        act: tuple | str | None = ("leakyrelu", {"negative_slope": 0.01}),
        norm: tuple | str | None = ("instance", {"affine": True}),
        dropout: tuple | str | float | None = 0.0,
        bias: bool = False,
    ) -> None:
        if channels < 2:
            raise ValueError(
                f"ResidualCoupling: channels must be at least 2 to split, got {channels}. Use more channels."
            )
        first, second = channels // 2, channels - channels // 2

        def branch(source: int, target: int) -> PreActivationConvolution:
            return PreActivationConvolution(
                spatial_dims, source, target, kernel_size=kernel_size, act=act, norm=norm, dropout=dropout, bias=bias
            )

        super().__init__(branch(second, first), branch(first, second), split=(first, second))


def residual_couplings(
    spatial_dims: int,
    channels: int,
    count: int,
    *,
    branch: str = "convolution",
    backprop: str = "invert",
    **options: Any,
) -> list[AdditiveCoupling]:
    """The ``count`` couplings of a level of a U-Net: :class:`ResidualCoupling`, or with layer-wise branches."""
    if count < 1:
        raise ValueError(
            f"ResidualCoupling: num_res_units must be at least 1, got {count}: a level without couplings computes "
            "nothing. Use num_res_units=2."
        )
    check_branch("ResidualCoupling", branch)
    if branch == "convolution":
        return [ResidualCoupling(spatial_dims, channels, **options) for _ in range(count)]
    half = channels // 2
    layerwise = partial(layerwise_branch, "ResidualCoupling", spatial_dims, half, channels - half, backprop=backprop)
    return [AdditiveCoupling(layerwise(), layerwise()) for _ in range(count)]
