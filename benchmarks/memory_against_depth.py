"""Memory of a training step against depth: a chain of couplings stored, checkpointed and inverted.

Simulated on fake tensors, so that a 3D chain of 100 couplings needs no machine that could hold it. Counted are the
living tensors without parameters and their gradients. The picture of the README.

    python benchmarks/memory_against_depth.py [--quick]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from common import CHANNELS, MODES, activation_peak, branch, figure, results, table, write

from monai_invertible.autograd import InvertibleSequential
from monai_invertible.networks.layers import AdditiveCoupling

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "memory_against_depth.png"


def chain(depth: int, backprop: str) -> InvertibleSequential:
    return InvertibleSequential(*[AdditiveCoupling(branch(), branch()) for _ in range(depth)], backprop=backprop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few depths, to see whether it runs")
    options = parser.parse_args()
    folder = results(options.quick)
    side = 96
    depths = (4, 8) if options.quick else (4, 10, 20, 40, 60, 80, 100)
    shape = (1, CHANNELS, side, side, side)
    gib = {
        mode: [activation_peak(lambda n=n, mode=mode: chain(n, mode), shape) / 2**30 for n in depths]  # type: ignore[misc]
        for mode in MODES
    }

    rows = [[MODES[mode][0], *[f"{value:.2f}" for value in gib[mode]]] for mode in MODES]
    write(
        folder / "memory_against_depth.md",
        "Memory of a training step against depth (simulated)",
        f"Peak of the living tensors in GiB, without parameters and their gradients: {CHANNELS} channels of "
        f"{side} x {side} x {side}, float32, batch 1; two-sided additive couplings whose branches are a 3 x 3 x 3 "
        "convolution, instance norm and leaky ReLU. Counted on fake tensors; not a measurement of a GPU: no kernel "
        "workspace, no allocator reserve.",
        table(["couplings", *[str(n) for n in depths]], rows),
    )

    fig, axes = figure()
    for mode, (label, colour) in MODES.items():
        values = gib[mode]
        axes.plot(depths, values, marker="o", markersize=4, linewidth=2, color=colour)
        text = f"{label}, {values[-1]:.1f} GiB" if values[-1] >= 1 else f"{label}, {values[-1]:.2f} GiB"
        axes.annotate(text, (depths[-1], values[-1]), (8, 0), textcoords="offset points", color=colour, va="center")
    axes.set(xlabel="couplings in the chain", ylabel="peak of a training step, GiB", ylim=(0, None))
    axes.set_title(f"Activation memory, 3D chain, {CHANNELS} channels, {side}³ (simulated)", loc="left", fontsize=11)
    axes.set_xlim(0, depths[-1] * 1.3)
    axes.set_xticks([n for n in (0, 20, 40, 60, 80, 100) if n <= depths[-1]])
    axes.grid(axis="y", color="#e6e6e6")
    image = folder / IMAGE.name if options.quick else IMAGE
    image.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(image)


if __name__ == "__main__":
    main()
