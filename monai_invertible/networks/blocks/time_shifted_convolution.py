"""The branch of a coupling that knows the time: norm, shift by the embedding, activation, convolution."""

from __future__ import annotations

from math import gcd

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

__all__ = ["TimeShiftedConvolution", "group_norm"]


class TimeShiftedConvolution(nn.Module):
    r"""``conv(dropout(silu(norm(x) + linear(embedding))))``, zero in the beginning.

    Half of the residual block of Ho et al., Denoising Diffusion Probabilistic Models, 2020, with its activations before
    the convolution, as a coupling's branch needs them. The last convolution starts at zero, as there: a coupling starts
    as the identity.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the input.
        out_channels: channels of the output.
        embedding_channels: E of the embedding of time and condition.
        norm_num_groups: of the group norm; the greatest divisor that it has in common with ``in_channels`` is taken.
        dropout: probability.

    Context: ``embedding`` ``(B, E)``, or ``(1, E)`` for all.

    Shapes: ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        embedding_channels: int,
        *,
        norm_num_groups: int = 8,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = group_norm(norm_num_groups, in_channels)
        self.shift = nn.Linear(embedding_channels, in_channels)
        self.act = nn.SiLU()
        self.dropout = nn.Dropout(dropout)
        self.conv = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size=3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """What the other half is moved by."""
        shift = self.shift(embedding)
        x = self.norm(x) + shift.view(*shift.shape, *(1,) * (x.ndim - 2))
        return self.conv(self.dropout(self.act(x)))


def group_norm(groups: int, channels: int) -> nn.GroupNorm:
    """Group norm with as many groups as asked for, or the greatest divisor in common with the channels."""
    return nn.GroupNorm(gcd(groups, channels), channels)
