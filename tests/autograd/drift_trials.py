"""Many random training steps that are right, and many that are not, for the drift guard to tell apart.

``python -m tests.autograd.drift_trials --right 2000 --planted 500`` prints counts, in some ten minutes. A step is
right when the gradient that inversion gives agrees with the stored one; it is computed for every step. The inputs are
those at which a guard may take rounding for signal: crops that an object touches with a few rows, zeros, constants,
single voxels, tiny and huge scales, offsets, empty samples. A planted error is noise that a layer's inverse adds, in
one place or everywhere.
"""

from __future__ import annotations

import argparse
import copy
import random
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from math import inf, prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from monai_invertible import InvertibleSequential, read_drift, set_backprop, set_drift_guard
from monai_invertible.autograd import InvertibleModule
from monai_invertible.networks import (
    FullyInvertibleUNet,
    InvertibleDiffusionUNet,
    InvertibleRIM,
    IRevNet,
    PartiallyInvertibleUNet,
)
from monai_invertible.networks.layers import AdditiveCoupling

LIMIT = 0.01  # of the default guard
RIGHT = 1e-3  # of a gradient; in single precision that of a healthy chain is wrong by 1e-7 to 1e-5
INPUTS = ("strip", "zeros", "constant", "voxel", "noise", "offset", "tiny", "huge", "empty", "channel", "scales")


class Trial(NamedTuple):
    """A network, its input and what happened."""

    name: str
    gradient_error: float  # of inversion, relative to the stored gradient
    drift: float

    @property
    def right(self) -> bool:
        """Some inputs, as zeros before norms, make rounding of a gradient."""
        return self.gradient_error < RIGHT


def field(kind: str, shape: Sequence[int], draw: random.Random) -> Tensor:
    """A provoking input of shape (B, C, *spatial)."""
    x = torch.randn(*shape)
    if kind == "strip":
        return strip(shape, draw) * 10 ** draw.uniform(-3, 3)
    if kind == "zeros":
        return torch.zeros(*shape)
    if kind == "constant":
        return torch.full(tuple(shape), draw.choice([1e-3, 1.0, 3.0, -7.5, 1e3]))
    if kind == "voxel":
        x = torch.full(tuple(shape), draw.choice([0.0, 0.0, 1.0]))
        x[tuple(draw.randrange(n) for n in shape)] = draw.choice([1e-3, 1.0, 100.0])
        return x
    if kind == "offset":
        return x + draw.choice([-1, 1]) * 10 ** draw.uniform(0, 3)
    if kind == "tiny":
        return x * 10 ** draw.uniform(-6, -3)
    if kind == "huge":
        return x * 10 ** draw.uniform(3, 6)
    if kind == "empty":  # samples of nothing but rounding
        x[draw.randrange(shape[0]) :] *= draw.choice([0.0, 1e-8, 1e-6])
    if kind == "channel":  # one of the channels varies
        keep = draw.randrange(shape[1])
        x[:, [c for c in range(shape[1]) if c != keep]] *= draw.choice([0.0, 1e-8, 1e-6])
    if kind == "scales":
        x = x * 10 ** torch.empty(shape[1]).uniform_(-4, 4).view(-1, *[1] * (len(shape) - 2))
    return x


def strip(shape: Sequence[int], draw: random.Random) -> Tensor:
    """An object that reaches into the field of view with a few rows; around it what a Fourier transform leaves."""
    x = torch.zeros(*shape)
    rows, start = draw.randint(2, 4), draw.choice([0, shape[-2] // 2, shape[-2] - 4])
    columns = slice(shape[-1] // 4, -(shape[-1] // 4) or None)
    x[..., start : start + rows, columns] = torch.randn(*x[..., start : start + rows, columns].shape).abs() + 0.5
    if draw.random() < 0.8:
        x = torch.fft.ifft2(torch.fft.fft2(x)).real
    return x.contiguous()


def coupling(dims: int, channels: int, kind: str, *, split: Any = None, bias: bool = True) -> AdditiveCoupling:
    """With branches of convolutions, and norms behind, before or not at all."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]

    def branch() -> nn.Module:
        norm = random.Random(torch.initial_seed()).choice([nn.GroupNorm(1, channels), nn.GroupNorm(channels, channels)])
        layers: dict[str, list[nn.Module]] = {
            "conv, norm": [conv(channels, channels, 3, padding=1), norm, nn.LeakyReLU()],
            "norm, conv": [norm, nn.SiLU(), conv(channels, channels, 3, padding=1)],
            "conv": [
                conv(channels, channels, 3, padding=1, bias=bias),
                nn.ReLU(),
                conv(channels, channels, 3, padding=1, bias=bias),
            ],
        }
        return nn.Sequential(*layers[kind])

    return AdditiveCoupling(branch(), branch(), split=split)


def extents(dims: int, draw: random.Random) -> list[int]:
    """Of a small field of view; in the plane often 80 x 48."""
    plane = draw.choice([[80, 48], [32, 32], [16, 16], [16, 24]])
    return {1: [draw.choice([16, 64, 2048])], 2: plane, 3: [4, *draw.choice([plane, [16, 16]])]}[dims]


Run = Callable[[nn.Module], Tensor]


def right_case(draw: random.Random) -> tuple[str, nn.Module, Run]:
    """A random network on a provoking input: its name, it, and what calls it."""
    kind = draw.choice(INPUTS)
    dims = draw.choice([2, 2, 2, 2, 3])
    batch = draw.choice([1, 1, 2, 4]) if dims == 2 else draw.choice([1, 2])
    family = draw.choice(["couplings", "couplings", "pair", "i-RIM", "i-RIM", "FI", "PI", "diffusion", "i-RevNet"])
    spatial = extents(dims, draw)
    if family == "couplings":
        dims = draw.choice([1, dims])
        spatial = extents(dims, draw) if dims == 1 else spatial
        branch, depth, half = (
            draw.choice(["conv, norm", "norm, conv", "conv"]),
            draw.choice([1, 2, 3, 5, 12]),
            draw.choice([1, 2, 4]),
        )
        x = field(kind if dims > 1 or kind != "strip" else "voxel", (batch, 2 * half, *spatial), draw)
        network: nn.Module = InvertibleSequential(*[coupling(dims, half, branch) for _ in range(depth)])
        return f"couplings {dims}D ({branch}) {kind}", network, lambda net: net(x)
    if family == "pair":
        branch, depth = draw.choice(["conv, norm", "norm, conv", "conv"]), draw.randint(1, 8)
        parts = [field(draw.choice(INPUTS), (batch, 4, *spatial), draw) for _ in range(2)]
        network = InvertibleSequential(*[coupling(dims, 4, branch, split=False) for _ in range(depth)])
        return f"pair {dims}D ({branch})", network, lambda net: torch.cat(net(*parts), 1)
    if family == "i-RIM":
        image = field(kind, (batch, 2, *spatial), draw).movedim(1, -1).contiguous()
        kspace = torch.view_as_real(torch.fft.fft2(torch.view_as_complex(image), norm="ortho"))[:, None]
        mask = (torch.rand(1, 1, *[1] * (dims - 1), spatial[-1], 1) < 0.4).float()
        mask[..., spatial[-1] // 2 - 2 : spatial[-1] // 2 + 2, :] = 1
        kspace = kspace * mask
        network = InvertibleRIM(
            dims, draw.randint(1, 3), channels=8, hidden_channels=8, downsample=(1, 2),
            initial=draw.choice(["zeros", "zero_filled"]),
        )  # fmt: skip
        return f"i-RIM {dims}D {kind}", network, lambda net: net(kspace, mask)
    if family == "i-RevNet":
        shape = (batch, 3, *draw.choice([(32, 32), (80, 48), (16, 16)]))
        x = field(kind, shape, draw)
        options = {"branch": draw.choice(["layerwise", "convolution"]), "channels": 8}
        return f"i-RevNet ({options['branch']}) {kind}", IRevNet(**options), lambda net: net(x)  # type: ignore[arg-type]
    x = field(kind, (batch, 2, *spatial), draw)
    if family == "diffusion":
        network = InvertibleDiffusionUNet(dims, 2, 2, (8, 16), (2,), norm_num_groups=4)
        times = torch.randint(0, 1000, (batch,))
        return f"diffusion {dims}D {kind}", network, lambda net: net(x, times)
    cls = {"FI": FullyInvertibleUNet, "PI": PartiallyInvertibleUNet}[family]
    strides = (2, 2) if dims == 2 else ((1, 2, 2), 2)
    return f"{family} {dims}D {kind}", cls(dims, 2, 3, (8, 16, 16), strides), lambda net: net(x)


def gradients(network: nn.Module, run: Run) -> Tensor:
    """Of all parameters, in a row."""
    y = run(network)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(
        (y * weights).mean() + 0.01 * y.square().mean(), list(network.parameters()), allow_unused=True
    )
    return torch.cat([g.flatten() for g in found if g is not None])


def relative(got: Tensor, expected: Tensor) -> float:
    """Error; infinite when anything is not finite."""
    error, scale = float((got - expected).double().norm()), float(expected.double().norm())
    return (error / scale if scale else error) if error == error and scale < inf else inf


def right_trial(seed: int) -> Trial:
    """One training step: how far its gradient is from the stored one, and the largest drift that the guard saw."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    name, network, run = right_case(draw)
    stored = gradients(set_backprop(copy.deepcopy(network), "store"), run)
    set_drift_guard(network, 1e30, None)
    error = relative(gradients(network, run), stored)
    return Trial(f"{seed}: {name}", error, max([v for v in read_drift(network).values() if v == v], default=0.0))


class Spoiled(InvertibleModule):
    """The identity, whose inverse adds noise somewhere."""

    def __init__(self, noise: Callable[[Sequence[Tensor]], Sequence[Tensor]]) -> None:
        super().__init__()
        self.noise = noise
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, *state: Tensor, **context: Any) -> Any:
        outputs = tuple(t * self.gain for t in state)
        return outputs if len(outputs) > 1 else outputs[0]

    def inverse(self, *state: Tensor, **context: Any) -> Any:
        outputs = tuple(t / self.gain + n for t, n in zip(state, self.noise(state), strict=True))
        return outputs if len(outputs) > 1 else outputs[0]


PLACES = ("whole", "channel", "corner", "voxel", "block", "sample", "tensor", "late")


def planted_trial(seed: int, place: str = "", *, steps: int = 4, size: float = 1) -> tuple[str, float, float]:
    """A chain with an error above the limit: its name, the error (of the worst channel), and the largest drift seen."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    place = place or draw.choice(PLACES)
    dims, half = draw.choice([1, 2, 2, 3]), draw.choice([1, 2, 4, 8])
    shape = (draw.choice([1, 2, 4]), 2 * half, *extents(dims, draw))
    tensors = 2 if place == "tensor" else draw.choice([1, 1, 2])
    shape = (shape[0], shape[1] // tensors, *shape[2:])
    kind = draw.choice(["noise", "noise", "strip" if dims > 1 else "noise", "offset", "tiny", "huge"])
    state = [field(kind, shape, draw) for _ in range(tensors)]
    if tensors == 2 and kind != "noise":  # of one scale
        state[1] = state[0].flip(0).clone()
    error = size * 10 ** draw.uniform(-1.7, 0)  # of the standard deviation of a channel; at least two percent
    index = [slice(None)] * len(shape)
    if place not in ("whole", "tensor", "late"):
        index[1] = slice(*(lambda c: (c, c + 1))(draw.randrange(shape[1])))
    if place == "sample":
        index[0], index[1] = slice(0, 1), slice(None)
    if place in ("corner", "voxel", "block"):
        index[0] = slice(0, 1)
        for d in range(2, len(shape)):
            extent = {"corner": max(shape[d] // 4, 2), "voxel": 1, "block": 2}[place]
            start = 0 if place == "corner" else draw.randrange(shape[d] - extent + 1)
            index[d] = slice(start, start + extent)

    def noise(tensors: Sequence[Tensor]) -> list[Tensor]:
        found = [torch.zeros_like(t) for t in tensors]
        for f, x in zip(found, state if place != "tensor" else state[:1], strict=False):
            where = f[tuple(index)]
            spread = x.std([0, *range(2, x.ndim)], keepdim=True).expand_as(x)[tuple(index)]
            values = torch.ones_like(where) if place in ("voxel", "block") else torch.randn_like(where)
            values = values * (prod(x.shape) // x.shape[1] / (values.square().sum() / where.shape[1])) ** 0.5
            where += error * spread * values
        return found

    def layers(n: int) -> list[InvertibleModule]:
        width, split = (half, None) if tensors == 1 else (shape[1], False)
        branch = "norm, conv" if kind == "offset" else "conv"  # outputs of the input's scale
        return [coupling(dims, width, branch, split=split, bias=kind != "tiny") for _ in range(n)]

    before, after = (draw.randint(3, 8), 0) if place == "late" else (0, draw.randint(0, 3))
    # The first layer's input is what is looked at; noise of a late layer passes through the branches of those before.
    network = InvertibleSequential(*layers(before), Spoiled(noise), *layers(after))
    set_drift_guard(network, 1e30, None)
    seen = 0.0
    for _ in range(steps):
        gradients(network, lambda net: torch.cat([t for t in (net(*state),)] if tensors == 1 else net(*state), 1))
        seen = max([seen, *[v for v in read_drift(network).values() if v == v]])
    return f"{seed}: {place} {dims}D {kind} {tuple(shape)}x{tensors}", error, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--right", type=int, default=2000)
    parser.add_argument("--planted", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    counts: Counter[str] = Counter()
    largest = 0.0
    seeds = count(arguments.seed)
    while counts["right and silent"] + counts["false alarm"] < arguments.right:
        trial = right_trial(next(seeds))
        right, alarm = trial.right, trial.drift > LIMIT
        verdict = (
            ("false alarm" if right else "true alarm")
            if alarm
            else ("right and silent" if right else "wrong and silent")
        )
        counts[verdict] += 1
        largest = max(largest, trial.drift) if right else largest
        if verdict != "right and silent":
            print(f"{verdict}: {trial.name}, gradient {trial.gradient_error:.1e}, drift {trial.drift:.1e}", flush=True)
    print(f"right steps: {dict(counts)}, the largest drift of a right step {largest:.1e}")
    found: Counter[str] = Counter()
    for i in range(arguments.planted):
        name, error, seen = planted_trial(arguments.seed + i)
        place = name.split()[1]
        found[f"{place} {'found' if seen > LIMIT else 'missed'}"] += 1
        if seen <= LIMIT:
            print(f"missed: {name}, error {error:.1e}, drift {seen:.1e}", flush=True)
    print(f"planted errors: {dict(sorted(found.items()))}")


if __name__ == "__main__":
    main()
