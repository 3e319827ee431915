"""One chain of additive couplings, trained four ways: stored, checkpointed, with memcnn, and inverted by this package.

All four have the same weights and see the same input; their gradients are compared first. The time of a step (forward,
mean square, backward) is taken in turns, so that a busy machine disturbs all alike. Memory is counted at several depths
in units of one activation, the full tensor that travels along the chain, by ``LiveBytes``; the events of torch's CPU
profiler, which see what the kernels allocate for themselves as well, stand beside it as a second opinion.

    python benchmarks/engine_vs_peers.py [--quick]
"""

from __future__ import annotations

import argparse
import gc
import statistics
import warnings
from collections.abc import Callable
from functools import partial

import torch
from common import CHANNELS, branch, figure, quartiles, results, table, take_turns, write
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from monai_invertible.autograd import InvertibleSequential
from monai_invertible.memory import LiveBytes
from monai_invertible.networks.layers import AdditiveCoupling

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # memcnn 1.5.2 uses torch.cuda.amp ...
    try:
        import memcnn
    except ImportError:  # gpu_check.py goes without; the table here does not
        memcnn = None
warnings.filterwarnings("ignore", message="TypedStorage is deprecated")  # ... and Tensor.storage()


class PlainCoupling(nn.Module):
    """y1 = x1 + F(x2), y2 = x2 + G(y1), as one writes it without any library."""

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f, self.g = f, g

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=1)
        y1 = x1 + self.f(x2)
        y2 = x2 + self.g(y1)
        return torch.cat([y1, y2], dim=1)


class Checkpointed(nn.Module):
    """A layer that keeps its input only."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.layer, x, use_reentrant=False)


CONTENDERS: dict[str, Callable[[int], nn.Module]] = {
    "stored": lambda n: nn.Sequential(*[PlainCoupling(branch(), branch()) for _ in range(n)]),
    "checkpointed": lambda n: nn.Sequential(*[Checkpointed(PlainCoupling(branch(), branch())) for _ in range(n)]),
    "memcnn": lambda n: nn.Sequential(
        *[
            memcnn.InvertibleModuleWrapper(memcnn.AdditiveCoupling(branch(), branch()), keep_input=False)
            for _ in range(n)
        ]
    ),
    "inverted": lambda n: InvertibleSequential(
        *[AdditiveCoupling(branch(), branch()) for _ in range(n)], backprop="invert"
    ),
}
if memcnn is None:
    del CONTENDERS["memcnn"]


def build(name: str, depth: int) -> nn.Module:
    """The contender with weights that depend on the depth alone: F and G of a coupling are built in the same order."""
    torch.manual_seed(depth)
    return CONTENDERS[name](depth)


def step(network: nn.Module, x: Tensor, after_forward: Callable[[], None] = lambda: None) -> None:
    y = network(x)
    loss = y.square().mean()
    after_forward()
    loss.backward()


def gradients(network: nn.Module, x: Tensor, train: Callable[[nn.Module, Tensor], None] = step) -> list[Tensor]:
    """Of all parameters, sorted so that the contenders agree whatever order they keep F and G in."""
    network.zero_grad()
    train(network, x.clone())  # memcnn takes its input's memory away
    return [p.grad.double() for _, p in sorted(network.named_parameters(), key=_place)]


def _place(named: tuple[str, nn.Parameter]) -> tuple[int, list[str]]:
    """Coupling, branch, layer and parameter, from names such as 12._fn.Fm.0.weight, 12.layer.f.0.weight."""
    parts = named[0].lower().replace("fm", "f").replace("gm", "g").split(".")
    return int(parts[0]), parts[-3:]


def gradient_errors(depth: int, x: Tensor) -> dict[str, float]:
    """Relative distance (2-norm, all parameters together) of each contender's gradient from the stored one's."""
    exact = gradients(build("stored", depth).to(x.dtype), x)
    errors = {}
    for name in CONTENDERS:
        found = gradients(build(name, depth).to(x.dtype), x)
        difference = sum(float((g - e).square().sum()) for g, e in zip(found, exact, strict=True))
        errors[name] = (difference / sum(float(e.square().sum()) for e in exact)) ** 0.5
    return errors


def times(depth: int, x: Tensor, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each step, by the clock and of the processor."""
    networks = {name: build(name, depth) for name in CONTENDERS}

    def training_step(network: nn.Module) -> None:
        network.zero_grad(set_to_none=True)
        step(network, x.clone())  # memcnn takes its input's memory away

    return take_turns({name: partial(training_step, network) for name, network in networks.items()}, repeats)


def memory(name: str, depth: int, size: int) -> tuple[float, float, float]:
    """Activations kept after forward, at the peak, and at the peak as the profiler sees it; no parameter gradients."""
    network = build(name, depth)
    for p in network.parameters():
        p.grad = torch.zeros_like(p)
    shape, unit = (1, CHANNELS, size, size, size), 4 * CHANNELS * size**3
    gc.collect()
    with LiveBytes() as live:
        step(network, torch.rand(shape), lambda: live.mark("forward"))
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as events:
        step(network, torch.rand(shape))
    now = peak = 0
    changes = [(e.start_ns(), e.nbytes()) for e in events.profiler.kineto_results.events() if e.name() == "[memory]"]
    for _, change in sorted(changes, key=lambda change: change[0]):
        now += change
        peak = max(peak, now)
    return live.phases["forward"].current / unit, live.peak / unit, peak / unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small size, to see whether it runs")
    parser.add_argument("--repeats", type=int, help="steps of each contender (default 15; quick 3)")
    options = parser.parse_args()
    if memcnn is None:
        parser.error("memcnn is one of the four and is not installed: pip install memcnn")
    folder = results(options.quick)
    depth, side, repeats = (4, 16, 3) if options.quick else (20, 48, 15)
    repeats = options.repeats or repeats
    depths, memory_side = ((2, 4, 8), 8) if options.quick else ((4, 20, 100), 16)

    x = torch.rand(1, CHANNELS, side, side, side, generator=torch.Generator().manual_seed(0))
    errors = gradient_errors(depth, x)
    double_errors = gradient_errors(depth, x[..., :16, :16, :16].double())
    used = {(name, n): memory(name, n, memory_side) for n in depths for name in CONTENDERS}
    seconds = times(depth, x, repeats)

    ratios = {}
    rows = []
    for name in CONTENDERS:
        clock = [own[0] / stored[0] for own, stored in zip(seconds[name], seconds["stored"], strict=True)]
        processor = [own[1] / stored[1] for own, stored in zip(seconds[name], seconds["stored"], strict=True)]
        ratios[name] = quartiles(clock)
        low, middle, high = ratios[name]
        rows.append(
            [
                name,
                f"{statistics.median(s[0] for s in seconds[name]):.2f}",
                f"{middle:.2f} ({low:.2f} to {high:.2f})",
                f"{statistics.median(processor):.2f}",
                *[f"{e[name]:.0e}" if e[name] else "0" for e in (errors, double_errors)],
            ]
        )
    head = ["", "seconds a step", "time, stored = 1 (quartiles)", "processor time", "gradient error", "in float64"]
    speed = table(head, rows)

    kept, peaks, profiled = (
        table(
            ["couplings", *[str(n) for n in depths]],
            [[name, *[f"{used[name, n][i]:.1f}" for n in depths]] for name in CONTENDERS],
        )
        for i in range(3)
    )
    write(
        folder / "engine_vs_peers.md",
        "A chain of additive couplings, trained four ways",
        f"Two-sided couplings of {CHANNELS} channels; F, G = 3 x 3 x 3 convolution, instance norm, leaky ReLU on "
        f"{CHANNELS // 2} channels; float32, batch 1. memcnn {memcnn.__version__}, `keep_input=False`.",
        f"## Time\n\n{depth} couplings, {side} x {side} x {side}, medians of {repeats} steps taken in turns; each "
        "ratio is to the stored step of the same turn. Gradient error: distance from the stored gradient, relative to "
        "its size (2-norm over all parameters); in float64 at 16 x 16 x 16.",
        speed,
        f"## Memory\n\nIn activations of {CHANNELS} x {memory_side} x {memory_side} x {memory_side}: input, output and "
        "all that is alive between, without parameters and their gradients. memcnn frees the caller's input during "
        "the step, the others leave it alone.\n\nPeak of the step, living tensors:",
        peaks,
        "Kept after forward, living tensors:",
        kept,
        "Peak by the allocation events of torch's CPU profiler, which include the workspace of the kernels:",
        profiled,
    )

    fig, (left, right) = figure(2)
    colours = dict(zip(CONTENDERS, ("#777777", "#c98500", "#7a5195", "#00796b"), strict=True))
    for name, colour in colours.items():
        values = [used[name, n][1] for n in depths]
        left.plot(depths, values, marker="o", color=colour)
        left.annotate(name, (depths[-1], values[-1]), (6, 0), textcoords="offset points", color=colour, va="center")
    left.set(xscale="log", yscale="log", xlabel="couplings", ylabel="peak, in activations", xlim=(None, depths[-1] * 4))
    left.set_xticks(depths, [str(n) for n in depths])
    left.set_yticks([5, 10, 20, 50, 100, 200, 400], ["5", "10", "20", "50", "100", "200", "400"])
    left.set_ylim(4, 1.3 * max(used[name, depths[-1]][1] for name in CONTENDERS))
    left.minorticks_off()
    left.set_title("Memory of a training step")
    for i, (name, colour) in enumerate(colours.items()):
        low, middle, high = ratios[name]
        right.barh(i, middle, color=colour, xerr=[[middle - low], [high - middle]], ecolor="#222222", height=0.6)
        right.text(high + 0.03, i, f"{middle:.2f}", va="center")
    right.set_yticks(range(len(colours)), list(colours))
    right.invert_yaxis()
    right.set(xlabel="time, stored = 1", title=f"Time of a training step, {depth} couplings")
    fig.savefig(folder / "engine_vs_peers.png")


if __name__ == "__main__":
    main()
