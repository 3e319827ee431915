"""Random chains: layers of every public kind and of a user's own, in any order that their shapes allow.

A builder follows the shapes of the state through the chain. Behind an invertible batch norm, which leaves statistics in
the state in training and none in evaluation, layers act on what lies above the statistics only, so that the chain runs
in both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

import torch
from torch import nn

from monai_invertible.autograd import Inverse, InvertibleModule, InvertibleSequential
from monai_invertible.networks.layers import (
    AdditiveCoupling,
    BatchPooling,
    ChannelPooling,
    ChannelSplit,
    CheckerboardAttention,
    GradientUpdate,
    InvertibleBatchNorm,
    InvertibleConvolution,
    InvertibleLeakyReLU,
    InvertibleUNetCore,
    LayerwiseBranch,
    OrthogonalConvolution,
    OrthogonalCoupling,
    OrthogonalDownsample,
    ResidualCoupling,
    SpaceToChannel,
    Swap,
)
from monai_invertible.operators import FourierSampling
from tests.fuzz.branches import CONV, random_branch
from tests.fuzz.choose import Choose
from tests.fuzz.layers import Crossed, Moved, Scaled, StackMoved
from tests.fuzz.micro import micro_chain

__all__ = ["Chain", "random_chain"]

Shape = tuple[int, ...]


@dataclass
class Chain:
    """A network and what it takes."""

    network: nn.Module
    shapes: list[Shape]
    context: str
    micro: bool = False


@dataclass
class State:
    """Shapes of the state; the tensors below ``base`` are out of reach."""

    shapes: list[Shape]
    base: int = 0

    @property
    def last(self) -> Shape:
        return self.shapes[-1]

    def reach(self) -> int:
        return len(self.shapes) - self.base


@dataclass
class Builder:
    choose: Choose
    context: str
    start: Shape
    depth: int = 0
    branches: dict[tuple[Shape, int], list[nn.Module]] = field(default_factory=dict)
    known: list[tuple[Shape, InvertibleModule]] = field(default_factory=list)

    def chain(self, state: State, longest: int, preserving: bool = False) -> InvertibleSequential:
        layers: list[InvertibleModule] = []
        for _ in range(self.choose.integer(1, longest)):
            layers += self.layer(state, preserving)
        if self.choose.chance(10, "nested part"):
            cut = self.choose.integer(1, len(layers))
            layers = [InvertibleSequential(*layers[:cut]), *layers[cut:]]
        return InvertibleSequential(*layers)

    def inner_chain(self, shape: Shape) -> nn.Module:
        inner = Builder(self.choose, "none", shape, self.depth + 1)
        chain = inner.chain(State([shape]), 3, preserving=True)
        norms = any(isinstance(m, InvertibleBatchNorm) for m in chain.modules())  # their inverse takes statistics
        return Inverse(chain) if not norms and self.choose.chance(25, "inverse in branch") else chain

    def branch(self, shape: Shape, outputs: int) -> nn.Module:
        known = self.branches.setdefault((shape, outputs), [])
        if known and self.choose.chance(15, "shared branch"):
            return self.choose.of(known)
        inner = self.inner_chain if self.depth < 2 else None
        known.append(random_branch(self.choose, shape, outputs, self.context, inner))
        return known[-1]

    def layer(self, state: State, preserving: bool) -> list[InvertibleModule]:
        b, c, *size = shape = state.last
        dims, reach, split, choose = len(size), state.reach(), c > 1, self.choose
        strides = [s for s in SMALL_STRIDES[dims] if all(n % k == 0 for n, k in zip(size, s, strict=True))]
        pairs = reach > 1 and state.shapes[-2][0] == b and state.shapes[-2][2:] == shape[2:]
        same = [x for known, x in self.known if known == shape and (len(state.shapes) == 1 or not orthogonal_in(x))]
        orthogonal = len(state.shapes) == 1 or choose.chance(20, "orthogonal layer in a stack")
        change = not preserving
        makers: dict[str, tuple[int, Callable[[], list[InvertibleModule]]]] = {
            "coupling": (8 * split, self.coupling(shape)),
            "moved layer": (4 * split, lambda: [self.moved(shape)]),
            "crossed layer": (3 * split, lambda: [self.crossed(shape)]),
            "scaled layer": (1, lambda: [Scaled(c)]),
            "orthogonal convolution": (2 * orthogonal, lambda: [OrthogonalConvolution(c, choose.integer(1, 4))]),
            "orthogonal coupling": (2 * (split and orthogonal), lambda: [self.orthogonal(shape)]),
            "invertible convolution": (2 * split, lambda: [InvertibleConvolution(dims, c)]),
            "residual coupling": (2 * split, lambda: [self.residual(dims, c, size)]),
            "invertible leaky relu": (2, lambda: [InvertibleLeakyReLU(choose.of([0.5, 1.0, 0.2]))]),
            "attention": (
                2,
                lambda: [
                    CheckerboardAttention(c, parity=choose.below(2), form=choose.of(["channel", "token"]), offset=2.0)
                ],
            ),
            "hybrid": (
                3 * (c >= 4 and c % 2 == 0 and b * prod(size) > 2),
                lambda: [AdditiveCoupling(*(LayerwiseBranch(dims, c // 2, choose.integer(1, 2)) for _ in "FG"))],
            ),
            "invertible batch norm": (3 * (b * prod(size) > 2), lambda: [self.batch_norm(state)]),
            "gradient update": (
                4 * (self.context == "kspace" and c >= 4 and (b, *size) == (self.start[0], *self.start[2:])),
                lambda: [GradientUpdate(FourierSampling(), c)],
            ),
            "nested chain": (2 * (self.depth < 2), lambda: [self.nested(state, preserving)]),
            "unet core": (2 * (c >= 4 and bool(strides) and self.depth < 2), lambda: self.unet(shape, strides)),
            "same layer again": (2 * bool(same), lambda: [choose.of(same)]),
            "space to channel": (change * 2 * bool(strides), lambda: self.pool(state, SpaceToChannel, strides)),
            "channel pooling": (change * bool(strides), lambda: self.pool(state, ChannelPooling, strides)),
            "batch pooling": (change * bool(strides), lambda: self.pool(state, BatchPooling, strides)),
            "orthogonal downsample": (
                change * 2 * bool(strides),
                lambda: self.pool(state, lambda s: self.downsample(c, s), strides),
            ),
            "channel split": (change * 2 * (split and reach < 3), lambda: [self.channel_split(state)]),
            "merge": (change * 2 * pairs, lambda: [self.merge(state)]),
            "swap": (change * 3 * (reach > 1), lambda: [self.swap(state)]),
            "coupling of two tensors": (change * 4 * pairs, lambda: [self.wide(state)]),
            "layer of two tensors": (change * 3 * pairs, lambda: [self.stack_moved(state)]),
        }
        kind = choose.name({name: weight for name, (weight, _) in makers.items()})
        layers = makers[kind][1]()
        if len(layers) == 1 and state.last == shape and kind not in ("invertible batch norm", "nested chain", "swap"):
            if choose.chance(12, "inverse"):
                layers = [Inverse(layers[0])]
            if reach == 1 and kind != "gradient update":
                self.known.append((shape, layers[0]))
        return layers

    def first(self, channels: int) -> int:
        return self.choose.of([max(channels // 2, 1), 1, channels - 1])

    def coupling(self, shape: Shape) -> Callable[[], list[InvertibleModule]]:
        def make() -> list[InvertibleModule]:
            b, c, *size = shape
            a, sides = self.first(c), self.choose.of(["FG", "F", "G"])
            f = self.branch((b, c - a, *size), a) if "F" in sides else None
            g = self.branch((b, a, *size), c - a) if "G" in sides else None
            return [AdditiveCoupling(f, g, split=(a, c - a))]

        return make

    def moved(self, shape: Shape) -> InvertibleModule:
        b, c, *size = shape
        a = self.first(c)
        return Moved(without_context(self, (b, a, *size), c - a), a)

    def crossed(self, shape: Shape) -> InvertibleModule:
        b, c, *size = shape
        a = self.first(c)
        return Crossed(without_context(self, (b, c - a, *size), a), without_context(self, (b, a, *size), c - a), a)

    def orthogonal(self, shape: Shape) -> InvertibleModule:
        b, c, *size = shape
        a = self.first(c)
        return OrthogonalCoupling(c, self.branch((b, a, *size), c - a), split=(a, c - a), reflections=2)

    def residual(self, dims: int, c: int, size: list[int]) -> InvertibleModule:
        norms = {"no norm": 1, "residual batch norm": 1, "residual instance norm": 2 * (prod(size) > 1)}
        norm = {"no norm": None, "residual batch norm": "batch", "residual instance norm": ("instance", {})}
        p = 0.3 * self.choose.chance(30, "residual dropout")
        named = norm[self.choose.name(norms)] if prod(size) > 2 else None
        return ResidualCoupling(dims, c, norm=named, dropout=p)

    def batch_norm(self, state: State) -> InvertibleModule:
        norm = InvertibleBatchNorm(state.last[1], momentum=0.3)
        with torch.no_grad():
            norm.weight += 0.3 * torch.randn_like(norm.weight)
            norm.bias += 0.3 * torch.randn_like(norm.bias)
        if self.choose.chance(15, "batch norm evaluates"):
            return norm.eval()
        statistics = (state.last[1],)
        state.shapes[-1:] = [statistics, statistics, state.last]
        state.base = len(state.shapes) - 1
        return norm

    def nested(self, state: State, preserving: bool) -> InvertibleModule:
        inner = Builder(self.choose, self.context, self.start, self.depth + 1, self.branches, self.known)
        before = list(state.shapes)
        chain = inner.chain(state, 3, preserving)
        if before == state.shapes and self.choose.chance(30, "inverse of chain"):
            norms = [m for m in chain.modules() if isinstance(m, InvertibleBatchNorm)]
            return chain if norms else Inverse(chain)
        return chain

    def unet(self, shape: Shape, strides: list[Shape]) -> list[InvertibleModule]:
        b, c, *size = shape
        stride = self.choose.of(strides)
        rest = max(c // 4, 1)
        form = self.choose.of(["squeeze", "cayley"])

        def couplings(width: int) -> list[InvertibleModule]:
            half = width // 2
            return [AdditiveCoupling(CONV[len(size) - 1](width - half, half, 1), None, split=(half, width - half))]

        core = InvertibleUNetCore((c, rest * prod(stride)), (stride,), couplings, downsample=form)
        split = ChannelSplit((c // 2, c - c // 2))
        return [split, core, Inverse(ChannelSplit(split.split))]

    def pool(self, state: State, make: Callable[[Shape], InvertibleModule], strides: list[Shape]) -> list:
        b, c, *size = state.last
        stride = self.choose.of(strides)
        layer = make(stride)
        cells = prod(stride)
        size = [n // k for n, k in zip(size, stride, strict=True)]
        state.shapes[-1] = (b * cells, c, *size) if isinstance(layer, BatchPooling) else (b, c * cells, *size)
        return [layer]

    def downsample(self, channels: int, stride: Shape) -> InvertibleModule:
        return OrthogonalDownsample(
            channels, stride, orthogonal_map=self.choose.of(["cayley", "matrix_exp", "householder"])
        )

    def channel_split(self, state: State) -> InvertibleModule:
        b, c, *size = state.last
        a = self.first(c)
        state.shapes[-1:] = [(b, a, *size), (b, c - a, *size)]
        return ChannelSplit((a, c - a))

    def merge(self, state: State) -> InvertibleModule:
        (b, c1, *size), (_, c2, *_) = state.shapes[-2:]
        state.shapes[-2:] = [(b, c1 + c2, *size)]
        return Inverse(ChannelSplit((c1, c2)))

    def swap(self, state: State) -> InvertibleModule:
        state.shapes[-2:] = state.shapes[-2:][::-1]
        return Swap()

    def wide(self, state: State) -> InvertibleModule:
        one, two = state.shapes[-2:]
        sides = self.choose.of(["FG", "F", "G"])
        f = self.branch(two, one[1]) if "F" in sides else None
        g = self.branch(one, two[1]) if "G" in sides else None
        return AdditiveCoupling(f, g, split=False)

    def stack_moved(self, state: State) -> InvertibleModule:
        one, two = state.shapes[-2:]
        return StackMoved(without_context(self, one, two[1]))


SMALL_STRIDES: dict[int, list[Shape]] = {
    1: [(2,)],
    2: [(2, 2), (1, 2)],
    3: [(2, 2, 2), (1, 2, 1), (1, 2, 2)],
}


def without_context(builder: Builder, shape: Shape, outputs: int) -> nn.Module:
    """A branch of a user's layer, which passes no context on."""
    inner = builder.inner_chain if builder.depth < 2 else None
    return random_branch(builder.choose, shape, outputs, "kspace", inner)


def random_chain(choose: Choose) -> Chain:
    """A chain of up to six layers on a state of one to three tensors."""
    torch.manual_seed(choose.below(4))
    dims = choose.integer(1, 3)
    sizes = {1: [[4], [6], [1], [2]], 2: [[4, 2], [3, 4], [1, 1], [4, 1]], 3: [[2, 2, 2], [1, 2, 4], [1, 1, 1]]}[dims]
    batch, size = choose.of([2, 1, 3]), choose.of(sizes)
    if choose.chance(5, "micro-batches"):
        network, shape = micro_chain(choose, dims, size)
        return Chain(network, [shape], "none", micro=True)
    shapes = [(batch, choose.of([4, 2, 3, 5, 1, 8]), *size) for _ in range(choose.of([1, 1, 1, 2, 3]))]
    context = choose.name({"none": 3, "time": 3, "kspace": 2 * (dims > 1)})
    builder = Builder(choose, context, shapes[-1])
    if choose.chance(5, "independent outputs"):
        shapes = [shapes[-1], shapes[-1]]
        one, other = ([scaled_if_alone(x) for x in builder.layer(State(shapes[:1]), preserving=True)] for _ in range(2))
        return Chain(InvertibleSequential(*one, Swap(), *other), shapes, context)
    network = builder.chain(State(list(shapes)), 6)
    if choose.chance(10, "shared parameters"):
        share(choose, network)
    return Chain(network, shapes, context)


def orthogonal_in(layer: nn.Module) -> bool:
    """Whether it has a layer that takes a state of one tensor only."""
    return any(isinstance(m, OrthogonalConvolution) for m in layer.modules())


def scaled_if_alone(layer: InvertibleModule) -> InvertibleModule:
    """The layer, unless it wants a state of one tensor, or leaves more."""
    alone = any(isinstance(m, (OrthogonalConvolution, InvertibleBatchNorm)) for m in layer.modules())
    return InvertibleLeakyReLU(0.5) if alone else layer


def share(choose: Choose, network: nn.Module) -> None:
    """Let one module have another's weight."""
    owners = [m for m in network.modules() if isinstance(m._parameters.get("weight"), nn.Parameter)]
    pairs = [(a, b) for a in owners for b in owners if a is not b and a.weight.shape == b.weight.shape]  # type: ignore
    if pairs:
        one, other = choose.of(pairs)
        one.weight = other.weight
