"""The chain of a fully invertible U-Net: encoder and decoder over a stack of tensors.

Etmann, Ke and Schoenlieb, iUNets, 2020, arXiv 2005.05220: the skeleton of the Fully-InvRes U-Net and of the invertible
diffusion U-Net.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from math import prod

from monai_invertible.autograd.module import Inverse, InvertibleModule
from monai_invertible.autograd.sequential import InvertibleSequential
from monai_invertible.networks.layers.orthogonal_downsample import OrthogonalDownsample
from monai_invertible.networks.layers.space_to_channel import SpaceToChannel
from monai_invertible.networks.layers.splitting import ChannelSplit, Swap

__all__ = ["InvertibleUNetCore", "halves"]


class InvertibleUNetCore(InvertibleSequential):
    r"""Levels of couplings, and lossless ways between them, as one invertible chain.

    Encoder, at each level: couplings on the last tensor of the stack, then :math:`(\dots, x) \mapsto (\dots, x_{skip},
    \mathrm{down}(x_{rest}))`: part of the channels stays behind as the skip connection, the rest is downsampled
    without loss. Decoder: the same backwards, :math:`(\dots, x_{skip}, y) \mapsto (\dots, [S(x_{skip});\,
    \mathrm{down}^{-1}(y)])` with the invertible maps S of the skip, if any, then couplings.

    The chain takes and returns the first level as two tensors (:func:`halves`), which couplings replace, and memory
    gets back, one by one. Saves its output, recomputes each branch once. ``core[0]`` is the encoder, ``core[1]`` the
    decoder.

    The widths of the levels follow the iUNet's rule: of the channels :math:`c_i`, those not needed for
    :math:`c_{i+1} / m` stay as the skip, :math:`m = \prod` stride.

    Args:
        channels: widths of the levels, from the first to the deepest. A split gives multiples of the stride's product,
            so a width may have to differ: a warning says so, and ``core.channels`` are the real ones.
        strides: between the levels; a tuple of one number per dimension each.
        couplings: from a level's width to its couplings.
        on_skip: from the channels of a skip to invertible maps of it; None for a skip that is passed on.
        downsample: "squeeze" (:class:`SpaceToChannel`), or the orthogonal map, "cayley", "matrix_exp" or
            "householder", of a learned :class:`OrthogonalDownsample`.
        backprop: "invert", "checkpoint" or "store".

    Shapes: ``(B, channels[0] // 2, *spatial)`` and ``(B, channels[0] - channels[0] // 2, *spatial)`` to the same;
    the products of ``strides`` divide the sizes.

    Raises:
        ValueError: a level without channels to split, an unknown ``downsample`` or ``backprop``.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[tuple[int, ...]],
        couplings: Callable[[int], Sequence[InvertibleModule]],
        *,
        on_skip: Callable[[int], Sequence[InvertibleModule]] | None = None,
        downsample: str = "squeeze",
        backprop: str = "invert",
    ) -> None:
        splits = level_splits(channels, strides)
        widths = [sum(splits[0]), *(rest * prod(step) for (_, rest), step in zip(splits, strides, strict=True))]
        if widths != list(channels):
            warnings.warn(
                f"InvertibleUNetCore: channels={tuple(channels)} cannot be had with strides={tuple(strides)}, since a "
                f"split gives each level a multiple of its stride's product. The levels have channels={tuple(widths)}.",
                stacklevel=3,
            )

        def down(width: int, step: tuple[int, ...]) -> InvertibleModule:
            if downsample == "squeeze":
                return SpaceToChannel(step)
            return OrthogonalDownsample(width, step, orthogonal_map=downsample)

        outer = ChannelSplit(halves(widths[0]))
        encoder: list[InvertibleModule] = [Inverse(outer), *couplings(widths[0])]
        decoder: list[InvertibleModule] = []
        for (skip, rest), step, width in zip(splits, strides, widths[1:], strict=True):
            encoder += [*leave(skip, rest, whole=on_skip is not None), down(rest, step), *couplings(width)]
        for (skip, rest), step, width in reversed(list(zip(splits, strides, widths, strict=False))):
            decoder.append(Inverse(down(rest, step)))
            if on_skip is not None:
                decoder += [Swap(), *on_skip(skip), Swap()]
            decoder += [Inverse(layer) for layer in reversed(leave(skip, rest, whole=on_skip is not None))]
            decoder += couplings(width)
        decoder.append(outer)
        super().__init__(
            InvertibleSequential(*encoder, backprop=backprop),
            InvertibleSequential(*decoder, backprop=backprop),
            backprop=backprop,
        )
        self.channels = tuple(widths)


def leave(skip: int, rest: int, *, whole: bool) -> list[InvertibleModule]:
    """Split a level's channels in the part that stays, as a whole or in pieces, and the rest, the last tensor.

    In pieces: if the first half stays as a whole, only the second is split: then no tensor is as large as the level,
    and the halves, which couplings replace one after the other, are freed one after the other.
    """
    first, second = halves(skip + rest)
    if whole or rest > second:
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
                f"InvertibleUNetCore: a level needs at least two channels to split, got channels={tuple(channels)}. "
                "Use more channels."
            )
        rest = min(max(round(wanted / prod(step)), 1), width - 1)
        splits.append((width - rest, rest))
        width = rest * prod(step)
    return splits
