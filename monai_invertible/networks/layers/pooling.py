"""Pooling that loses nothing: blocks of neighbours become channels, or images of the batch.

Hascoet et al., Layer-Wise Invertibility for Extreme Memory Cost Reduction, 2019, arXiv 1910.11127, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from torch import Tensor

from monai_invertible.autograd.module import InvertibleModule, State, as_tuple
from monai_invertible.networks.layers.space_to_channel import SpaceToChannel

__all__ = ["BatchPooling", "ChannelPooling"]


class ChannelPooling(InvertibleModule):
    r"""Blocks of neighbouring positions become channels, the position in the block being the slower index.

    ``forward``: :math:`(\dots, x) \mapsto (\dots, y)` with :math:`y_{k C + c}[i] = x_c[i \odot s + o_k]`, where
    :math:`o_1, \dots, o_m` are the offsets in a block of the stride s. ``inverse``: the same, read from right to left.

    :class:`~monai_invertible.networks.layers.SpaceToChannel` has the channels in the other order; here a coupling's
    halves are different positions of all channels. Saves nothing, recomputes nothing, exact.

    Args:
        stride: s, one number per spatial dimension.

    Shapes: ``(B, C, *spatial)`` to ``(B, C m, *spatial / s)``; of a state of several tensors the last.

    Raises:
        ValueError: a size that the stride does not divide, or channels (of the inverse) that m does not divide.
    """

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self.blocks = SpaceToChannel(stride)

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Blocks to channels."""
        *rest, x = state
        y = as_tuple(self.blocks(x))[0].unflatten(1, (x.shape[1], -1)).transpose(1, 2).flatten(1, 2)
        return (*rest, y) if rest else y

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """Channels to blocks."""
        *rest, y = state
        cells = prod(self.blocks.stride)
        if y.shape[1] % cells:
            raise ValueError(
                f"ChannelPooling: the inverse of stride {self.blocks.stride} needs a multiple of {cells} channels, got "
                f"{y.shape[1]}. Give it what forward returns."
            )
        x = as_tuple(self.blocks.inverse(y.unflatten(1, (cells, -1)).transpose(1, 2).flatten(1, 2)))[0]
        return (*rest, x) if rest else x


class BatchPooling(InvertibleModule):
    r"""Blocks of neighbouring positions become images of the batch.

    ``forward``: :math:`(\dots, x) \mapsto (\dots, y)` with :math:`y_{b m + k, c}[i] = x_{b, c}[i \odot s + o_k]`.
    ``inverse``: the same, read from right to left.

    Halves the resolution without more channels: the layers behind see each of the m images by itself. Saves nothing,
    recomputes nothing, exact.

    Args:
        stride: s, one number per spatial dimension.

    Shapes: ``(B, C, *spatial)`` to ``(B m, C, *spatial / s)``; of a state of several tensors the last.

    Raises:
        ValueError: a size that the stride does not divide, or a batch (of the inverse) that m does not divide.
    """

    def __init__(self, stride: Sequence[int]) -> None:
        super().__init__()
        self.blocks = SpaceToChannel(stride)

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Blocks to the batch."""
        *rest, x = state
        y = as_tuple(self.blocks(x))[0].unflatten(1, (x.shape[1], -1)).transpose(1, 2).flatten(0, 1)
        return (*rest, y) if rest else y

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """The batch to blocks."""
        *rest, y = state
        cells = prod(self.blocks.stride)
        if len(y) % cells:
            raise ValueError(
                f"BatchPooling: the inverse of stride {self.blocks.stride} needs a multiple of {cells} images, got "
                f"{len(y)}. Give it what forward returns."
            )
        x = as_tuple(self.blocks.inverse(y.unflatten(0, (-1, cells)).transpose(1, 2).flatten(1, 2)))[0]
        return (*rest, x) if rest else x
