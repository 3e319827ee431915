"""How far a recomputed state is from what it was: over all of it, from a few numbers of each channel.

Of a channel x, random signs r keep the number <r, x>. Of the recomputed x' they give another, and the mean square of
the difference, over the signs, is the square of \\|x' - x\\| (Johnson and Lindenstrauss, Extensions of Lipschitz
mappings into a Hilbert space, 1984; with signs: Achlioptas, Database-friendly random projections, 2003). So an error is
seen wherever it is; that of a single voxel even exactly. The signs are drawn again when they are needed again, by a
generator of their own. They multiply piece by piece and in double precision, so that no product rounds, no layout
matters, and there is no copy as large as the state.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from math import inf, nan
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Watch"]

LOOKS = 4  # random numbers of a channel
SMALL = 4096  # numbers: such a state is kept itself
FEW = 16 * LOOKS  # numbers of a channel, below which it is not worth numbers of its own
PIECE = 2**16  # numbers that are multiplied at a time: some hundred kilobytes, which stay in a processor's cache
LAUNCH = 2**20, 16  # the same on other devices, where an operation costs its launch: numbers, or a part of the state
OTHERS = 0.1  # a channel's scale is at least this part of the largest channel's
BEHIND = 0.03  # and this part of what the chain adds to it
ROUNDING = 1e-4  # and of the root mean square: about a thousand roundings in single precision
FLAT = 1e-6  # of the root mean square: a standard deviation that is rounding
seeds = random.Random(0)  # of its own: nobody else's random numbers change


class Watch:
    r"""Remembers a state by a few numbers and says how wrong it was recomputed.

    The error of channel c is :math:`\|x'_c - x_c\|`, relative to its scale: the standard deviation of :math:`x_c`
    about its mean (which a normalisation would take away), or a tenth of the largest channel's if that is more; and at
    least three percent of the output's largest (or of the root mean square by which the output is more than the input),
    and a ten-thousandth of the root mean square of input or output. So nothing is judged by its own rounding: neither a
    channel or a sample which holds nothing else, nor an image almost without contrast, nor an input that drowns in what
    the chain adds to it. The price: a chain that begins with a normalisation of an input smaller than three percent of
    its output is judged mildly. Tensors of few numbers, such as statistics, are one channel each, judged by the scale
    of the largest of all.

    Args:
        state: what will be recomputed; tensors of floating-point or complex numbers, one number at least.
        whole: keep it all.
    """

    def __init__(self, state: Sequence[Tensor], *, whole: bool = False) -> None:
        self.seed = seeds.getrandbits(32)
        with torch.no_grad():
            tensors = [by_channel(t) for t in state]
            self.whole = whole or sum(t.numel() for t in tensors) <= SMALL
            self.spreads: list[Spread] = []
            self.kept = self.look(tensors, self.spreads)
        self.ends: list[Spread] = []
        eps = max(torch.finfo(t.dtype).eps for t in tensors)
        self.rounding, self.flat = max(ROUNDING, 32 * eps), max(FLAT, 16 * eps)

    def look(self, tensors: Sequence[Tensor], spreads: list[Spread] | None = None) -> list[Tensor]:
        """Of each channel the sums with random signs, (C, LOOKS), or all; and the spreads, if asked for."""
        device = tensors[0].device
        generator = torch.Generator(device).manual_seed(self.seed)
        places = torch.arange(LOOKS, dtype=torch.uint8, device=device)
        found = []
        for t in tensors:
            moments = Moments()
            sums = []
            for piece in pieces(t):
                if spreads is not None:
                    moments.add(piece)
                if not self.whole:
                    shape = len(piece), piece.shape[2], 1
                    bits = torch.randint(0, 2**LOOKS, shape, dtype=torch.uint8, generator=generator, device=device)
                    signs = ((bits >> places) & 1).to(piece.dtype).mul_(2).sub_(1)
                    sums.append(signed_sums(piece, signs))
            if spreads is not None:
                spreads.append(moments.spread(t))
            found.append(t.clone() if self.whole else added(sums))
        return found

    def end(self, state: Sequence[Tensor]) -> None:
        """Be told the chain's output, whose layout and number of tensors are its own."""
        with torch.no_grad():
            self.ends = [spread(by_channel(t)) for t in measurable(state)]

    def noise(self, state: Sequence[Tensor]) -> list[Tensor]:
        """Of each tensor and channel the square of the error's norm."""
        tensors = [by_channel(t) for t in state]
        if self.whole:
            errors = [spread(a - b) for a, b in zip(tensors, self.kept, strict=True)]
            return [e.energy * e.numbers for e in errors]
        return [(a - b).square().mean(1) for a, b in zip(self.look(tensors), self.kept, strict=True)]

    def error(self, state: Sequence[Tensor]) -> Tensor:
        """The largest of all channels, a number on the state's device.

        It is infinite when the recomputed state is not finite, and not a number when there is nothing to judge by: the
        forward was not finite, or its input does not vary but by rounding, as that of an empty patch.
        """
        with torch.no_grad():
            ends = self.ends or self.spreads
            variance, energy, end = largest(self.spreads), mean_square(self.spreads), mean_square(ends)
            more = torch.maximum(largest(ends), (end.sqrt() - energy.sqrt()).clamp(min=0).square())
            floor = torch.maximum(energy, end) * self.rounding**2 + more * BEHIND**2
            errors = []
            for noise, s in zip(self.noise(state), self.spreads, strict=True):
                least = variance if s.together else variance * OTHERS**2
                errors.append((noise / s.numbers / (torch.maximum(s.variance, least) + floor)).amax())
            error = torch.stack(errors).amax().sqrt().nan_to_num(nan=inf, posinf=inf)
            return torch.where(floor.isfinite() & (variance > energy * self.flat**2), error, nan)

    def totals(self, state: Sequence[Tensor]) -> tuple[float, float]:
        """Mean squares of what was remembered and of the error, over all; for the signal-to-noise ratio."""
        with torch.no_grad():
            noise = sum(float(n.sum()) for n in self.noise(state))
            return float(mean_square(self.spreads)), noise / sum(s.numbers * len(s.energy) for s in self.spreads)


class Spread(NamedTuple):
    """Of the channels of a tensor: (C,) each."""

    variance: Tensor
    energy: Tensor  # mean square
    numbers: int  # of a channel
    together: bool  # the whole tensor is one channel


def mean_square(spreads: Sequence[Spread]) -> Tensor:
    """Over all tensors."""
    count = sum(s.numbers * len(s.energy) for s in spreads)
    return torch.stack([s.energy.sum() * s.numbers for s in spreads]).sum() / count


def largest(spreads: Sequence[Spread]) -> Tensor:
    """Variance of a channel; of those of statistics only where there are no others."""
    return torch.stack([s.variance.amax() for s in [s for s in spreads if not s.together] or spreads]).amax()


class Moments:
    """Sums of a tensor's pieces, which double precision adds up exactly enough."""

    def __init__(self) -> None:
        self.sums: list[Tensor] = []
        self.squares: list[Tensor] = []

    def add(self, piece: Tensor) -> None:
        """A (b, C, n)."""
        self.sums.append(piece.sum((0, 2)))
        self.squares.append(piece.square().sum((0, 2)))

    def spread(self, tensor: Tensor) -> Spread:
        """When all its pieces are added."""
        numbers = tensor.numel() // tensor.shape[1]
        mean, energy = added(self.sums) / numbers, added(self.squares) / numbers
        return Spread((energy - mean.square()).clamp(min=0), energy, numbers, tensor.shape[1] == 1)


def spread(tensor: Tensor) -> Spread:
    """Of a (B, C, ...)."""
    moments = Moments()
    for piece in pieces(tensor):
        moments.add(piece)
    return moments.spread(tensor)


def signed_sums(piece: Tensor, signs: Tensor) -> Tensor:
    """Of (b, C, n) and (b, n, k): (C, k)."""
    if piece.device.type == "cpu":
        return (piece @ signs).sum(0)
    # Without the matrix products of a GPU, which round, take a work space, or are refused where all must be repeatable.
    return torch.stack([(piece * s.unsqueeze(1)).sum((0, 2)) for s in signs.unbind(2)], 1)


def added(tensors: Sequence[Tensor]) -> Tensor:
    """Their sum."""
    return tensors[0] if len(tensors) == 1 else torch.stack(tuple(tensors)).sum(0)


def measurable(state: Sequence[Tensor]) -> list[Tensor]:
    """The state's tensors of numbers that rounding can change; none where there are no numbers to look at.

    As in tensors which only describe others (fake and meta ones) or are parts of others, and in the capture of a graph.
    """
    if any(t.is_meta or type(t).__torch_dispatch__ is not Tensor.__torch_dispatch__ for t in state):
        return []
    found = [t for t in state if t.numel() and (t.is_floating_point() or t.is_complex())]
    capturing = any(t.is_cuda for t in found) and torch.cuda.is_current_stream_capturing()
    return [] if capturing else found


def by_channel(tensor: Tensor) -> Tensor:
    """As (B, C, ...); of few numbers a channel, as one channel."""
    t = tensor.detach().as_subclass(Tensor)
    t = torch.view_as_real(t) if t.is_complex() else t
    together = t.ndim < 3 or t.numel() < FEW * t.shape[1]
    return t.reshape(1, 1, -1) if together else t


def pieces(tensor: Tensor) -> Iterator[Tensor]:
    """A (B, C, ...) in parts, (b, C, n) each, in double precision; they divide samples and the first dimension."""
    limit = PIECE if tensor.device.type == "cpu" else max(LAUNCH[0], tensor.numel() // LAUNCH[1])
    for samples in tensor.split(max(limit * len(tensor) // tensor.numel(), 1)):
        for piece in samples.split(max(limit * samples.shape[2] // samples.numel(), 1), 2):
            yield wide(piece).flatten(2)


def wide(tensor: Tensor) -> Tensor:
    """In double precision, where every device of its kind has it."""
    return tensor.to(torch.float64 if tensor.device.type in ("cpu", "cuda") else torch.float32)
