"""The smallest memory: bytes of one training step for each input pixel, and where the hybrid's bytes go.

Hascoet et al. 2019, arXiv 1910.11127, section 5, give them for five classifiers from formulas. Here steps are simulated
on fake tensors, where all living tensors count. What grows with the images, and nothing else, is the difference of two
batch sizes over the difference of their pixels.

    python benchmarks/extreme_memory.py [--quick]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from common import results, table, take_turns, write
from torch import nn
from torch._subclasses import FakeTensorMode

from monai_invertible import set_backprop, set_drift_guard
from monai_invertible.autograd import drift, drift_watch
from monai_invertible.memory import LiveBytes
from monai_invertible.networks import FullyInvertibleUNet, InvertibleRIM, IRevNet, LayerwiseBranch, PlainResNet, RevNet

LAYERWISE: dict[str, Any] = {"branch": None, "blocks": (3, 4, 4, 2)}
HYBRIDS = {n: partial(IRevNet, micro_batches=n) for n in (4, 8, 16)}
# Name, network, bytes per pixel in the paper.
NETWORKS: list[tuple[str, Callable[[], nn.Module], str]] = [
    ("ResNet", PlainResNet, "1928"),
    ("RevNet", RevNet, "640"),
    ("i-RevNet", partial(IRevNet, branch="convolution", pools=("channel",) * 3), "640"),
    ("layer-wise", partial(IRevNet, **LAYERWISE), "320"),
    ("- in 8 micro-batches", partial(IRevNet, **LAYERWISE, micro_batches=8), "320"),
    ("hybrid", IRevNet, "352"),
    ("- in 4 micro-batches", HYBRIDS[4], "352"),
    ("- in 8 micro-batches", HYBRIDS[8], "352"),
    ("- in 16 micro-batches", HYBRIDS[16], "352"),
]


def branches(network: nn.Module, mode: str) -> nn.Module:
    """Choose how the chains within branches come back, and leave the others."""
    for module in network.modules():
        if isinstance(module, LayerwiseBranch):
            set_backprop(module, mode)
    return network


STEPS: dict[str, Callable[[], nn.Module]] = {
    "all activations stored": lambda: set_backprop(IRevNet(), "store"),
    "couplings inverted, branches stored": lambda: branches(IRevNet(), "store"),
    "layers in the branches inverted, too": IRevNet,
    "branches in 4 micro-batches": HYBRIDS[4],
    "branches in 8 micro-batches": HYBRIDS[8],
    "branches in 16 micro-batches": HYBRIDS[16],
}


def peak(build: Callable[[], nn.Module], *shape: int) -> int:
    """Of forward, mean square and backward, without the input, parameters and their gradients."""
    with FakeTensorMode():
        network = build()
        for p in network.parameters():
            p.grad = torch.zeros_like(p)
        x = torch.rand(*shape)
        with LiveBytes() as live:
            network(x).square().mean().backward()
        return live.peak


@cache
def per_pixel(build: Callable[[], nn.Module], batch: int) -> float:
    """Bytes that an additional pixel costs, from a batch to twice as large a batch of pictures of 32 x 32."""
    return (peak(build, 2 * batch, 3, 32, 32) - peak(build, batch, 3, 32, 32)) / (batch * 1024)


def megabytes(build: Callable[[], nn.Module]) -> str:
    with torch.device("meta"):
        return f"{sum(p.numel() for p in build().parameters()) * 4 / 1e6:.1f}"


def seconds(steps: dict[str, Callable[[], nn.Module]], batch: int, repeats: int) -> list[str]:
    """Time of a step beside the first's, by the processor's clock."""
    torch.manual_seed(0)
    images = torch.randn(batch, 3, 32, 32)

    def step(network: nn.Module) -> None:
        network(images).square().mean().backward()

    found = take_turns({name: partial(step, build()) for name, build in steps.items()}, repeats)
    middle = [statistics.median(processor for _, processor in times) for times in found.values()]
    return [f"{value / middle[0]:.2f}" for value in middle]


def guard_share(network: nn.Module, x: torch.Tensor) -> float:
    """The part of the steps' time that passes within the drift guard, once it measures one step in some."""
    spent = 0.0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            nonlocal spent
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                spent += time.process_time() - start

        return run

    for _ in range(drift.FIRST):
        network(x).square().mean().backward()
    guard, watch = drift.DriftGuard, drift_watch.Watch
    before = guard.begin, guard.judge, watch.end
    guard.begin, guard.judge, watch.end = (timed(function) for function in before)  # type: ignore[method-assign]
    try:
        start = time.process_time()
        for _ in range(drift.EVERY):
            network(x).square().mean().backward()
        return spent / (time.process_time() - start)
    finally:
        guard.begin, guard.judge, watch.end = before  # type: ignore[method-assign]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few networks, small sizes: shows that it runs")
    quick = parser.parse_args().quick
    batch, size, repeats = (32, 32, 1) if quick else (512, 128, 5)
    networks = NETWORKS[:4] if quick else NETWORKS
    steps = dict(list(STEPS.items())[:4]) if quick else STEPS

    classifiers = [[name, megabytes(build), paper, f"{per_pixel(build, batch):.1f}"] for name, build, paper in networks]
    times = seconds(steps, 16 if quick else 64, repeats)
    sizes = [per_pixel(build, batch) for build in steps.values()]
    saved = ["-", *(f"{before - after:.1f}" for before, after in zip(sizes, sizes[1:], strict=False))]
    hybrid = [
        [name, f"{bytes_:.1f}", less, ratio]
        for name, bytes_, less, ratio in zip(steps, sizes, saved, times, strict=True)
    ]

    def unet(**options: Any) -> nn.Module:
        return FullyInvertibleUNet(3, 4, 3, (32, 64, 128, 256), (2, 2, 2), **options)

    volumes = {
        "convolution branches (one convolution each), stored": lambda: unet(backprop="store"),
        "convolution branches, inverted": unet,
        "layer-wise branches (two units each), stored": lambda: unet(branch="layerwise", backprop="store"),
        "layer-wise branches, couplings inverted": lambda: branches(unet(branch="layerwise"), "store"),
        "layer-wise branches, couplings and layers inverted": lambda: unet(branch="layerwise"),
    }
    peaks = [
        [name, megabytes(build), f"{peak(build, 1, 4, *(size,) * 3) / 2**30:.3f}"] for name, build in volumes.items()
    ]

    torch.manual_seed(0)
    guarded: dict[str, tuple[nn.Module, torch.Tensor]] = {
        "hybrid, 256 pictures of 32 x 32": (IRevNet(), torch.randn(16 if quick else 256, 3, 32, 32)),
        "i-RIM, 40 layers, 64 x 64": (InvertibleRIM(2, 4), torch.randn(1, 1, 64, 64, 2)),
        "Fully-InvRes U-Net, 48³": (
            FullyInvertibleUNet(3, 4, 3, (16, 32, 64), (2, 2)),
            torch.randn(1, 4, *(48,) * 3),
        ),
    }
    shares = [
        [name, f"{100 * guard_share(set_drift_guard(network), x):.2f} %"] for name, (network, x) in guarded.items()
    ]
    write(
        results(quick) / "extreme_memory.md",
        "The smallest memory",
        "## Bytes per pixel of five classifiers",
        table(["", "parameters, MB", "paper", "here"], classifiers),
        f"Bytes of one training step (float32) for each pixel of the input, from {batch} to {2 * batch} pictures of "
        "32 x 32: all that lives at the peak but the input, parameters and their gradients. The paper's are computed.",
        "## Where the hybrid's bytes go",
        table(["", "bytes per pixel", "saved", "time of a step"], hybrid),
        "256 of them are the state of the chain and its gradient, 32 channels each. Time: of the processor, beside the "
        "first's, in this run.",
        f"## Layer-wise branches in the Fully-InvRes U-Net, {size}³, 4 modalities",
        table(["", "parameters, MB", "peak of a step, GiB"], peaks),
        "## What the drift guard costs",
        table(["", "share of a step's time"], shares),
    )


if __name__ == "__main__":
    main()
