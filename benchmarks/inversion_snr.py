"""How exactly layer-wise invertible networks and their hybrid with couplings find back, without any training.

What figures 5, 6, 10, 11, 13 and 14 of Hascoet et al., Layer-Wise Invertibility for Extreme Memory Cost Reduction of
CNN Training, 2019, arXiv 1910.11127, show: how much of the signal-to-noise ratio the inverses of a leaky ReLU and of a
batch normalisation lose, and the lowest ratio in a network against its depth, its slope and the number format.

    python benchmarks/inversion_snr.py [--quick]
"""

from __future__ import annotations

import argparse
import copy
from functools import cache
from math import isfinite, log10
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from common import figure, results, table, write
from torch import Tensor, nn

from monai_invertible import Inverse, set_backprop, set_drift_guard
from monai_invertible.networks import InvertibleBatchNorm, InvertibleLeakyReLU, IRevNet
from monai_invertible.numerics import (
    PRECISIONS,
    ReconstructionReport,
    batch_norm_alpha,
    gradient_error,
    leaky_relu_alpha,
    measure_alpha,
    reconstruction_snr,
)

BRANCHES = {"layer-wise": None, "hybrid": "layerwise"}
COLOURS = {"layer-wise": "#c98500", "hybrid": "#00796b"}
FORMATS = dict(zip(PRECISIONS, ("#111111", "#00796b", "#5e4fa2", "#c98500", "#cc3311"), strict=True))
SLOPE = 0.2


class Setting:
    """Sizes of the networks and their batch."""

    def __init__(self, quick: bool) -> None:
        self.batch, self.channels, self.edge = (8, 8, 16) if quick else (64, 32, 32)
        self.depths = (3, 5) if quick else (3, 5, 7, 9, 11, 13)
        self.few_depths = (3,) if quick else (3, 7, 11)
        self.slopes = (0.1, 0.5) if quick else (0.01, 0.03, 0.1, 0.2, 0.5, 0.75, 1.0)
        self.slopes_depth = 3 if quick else 7
        self.layers_depth = 3 if quick else 11
        self.points = 5 if quick else 25  # of the curves of alpha
        self.images = torch.randn(self.batch, 3, self.edge, self.edge, generator=torch.Generator().manual_seed(0))

    def network(self, kind: str, depth: int, slope: float = SLOPE) -> nn.Module:
        """Three stages, to which units or couplings are dealt in turn."""
        torch.manual_seed(0)
        blocks = [(depth + 2 - stage) // 3 for stage in range(3)]
        sizes: dict[str, Any] = {"channels": self.channels, "blocks": blocks, "pools": ("channel", "channel")}
        return IRevNet(branch=BRANCHES[kind], negative_slope=slope, **sizes)

    def loss(self, network: nn.Module) -> Tensor:
        return network(self.images).sum()

    def gradient_error(self, kind: str, depth: int, slope: float = SLOPE) -> float:
        """Of the inverted network, beside the stored one."""
        network = set_drift_guard(self.network(kind, depth, slope), None, None)
        return gradient_error(network, set_backprop(copy.deepcopy(network), "store"), self.loss)


@cache
def measure(setting: Setting, kind: str, depth: int, slope: float, precision: str) -> ReconstructionReport:
    return reconstruction_snr(setting.network(kind, depth, slope), setting.loss, precision=precision)


def norm_layer(scale: Tensor) -> InvertibleBatchNorm:
    layer = InvertibleBatchNorm(len(scale), eps=1e-12, invertible_eps=0.0).double()
    layer.weight = nn.Parameter(scale)
    return layer


def alphas(setting: Setting, folder: Path) -> str:
    """Figures 5 and 6 of the paper: formula and measurement."""
    torch.manual_seed(0)
    x = torch.randn(10_000, 100, dtype=torch.float64)
    fig, (left, right) = figure(2)
    slopes = torch.logspace(-3, 3, setting.points).tolist()
    layers = [InvertibleLeakyReLU(s) if s <= 1 else Inverse(InvertibleLeakyReLU(1 / s)) for s in slopes]
    activation = [(leaky_relu_alpha(s), measure_alpha(layer, x)) for s, layer in zip(slopes, layers, strict=True)]
    factors = torch.logspace(0, 2, setting.points).tolist()
    scales = [torch.where(torch.arange(100) < 20, 1 / f, 1.0).double() for f in factors]
    norm = [(batch_norm_alpha(scale), measure_alpha(norm_layer(scale), x)) for scale in scales]
    printed = [float(1 / (scale.square().mean() * (1 / scale).mean())) for scale in scales]
    right.plot(factors, printed, ":", color="#777777", label="formula as printed, without the square")
    for axes, places, pairs in ((left, slopes, activation), (right, factors, norm)):
        axes.plot(places, [formula for formula, _ in pairs], color="#00796b", label="formula")
        axes.plot(places, [measured for _, measured in pairs], "o", ms=4, color="#c98500", label="measured")
        axes.set(xscale="log", yscale="log", ylabel="α, signal to noise kept by the inverse")
        axes.grid(color="#e6e6e6")
        axes.legend(frameon=False, fontsize=9)
    left.set(xlabel="negative slope of a leaky ReLU")
    right.set(xlabel="batch norm: 20 of 100 scales divided by")
    fig.savefig(folder / "inversion_snr_alpha.png")
    worst = [max(abs(measured / formula - 1) for formula, measured in pairs) for pairs in (activation, norm)]
    wrong = max(p / measured for p, (_, measured) in zip(printed, norm, strict=True))
    return (
        "Inputs are normally distributed, the noise on the output is 1e-5. The largest relative difference between "
        f"measurement and formula is {worst[0]:.1%} for the leaky ReLU and {worst[1]:.1%} for the batch norm. The "
        f"paper's equation 25g as printed is off by a factor of up to {wrong:.0f}."
    )


def against_depth(setting: Setting, axes: Any) -> str:
    rows = []
    for kind in BRANCHES:
        reports = [measure(setting, kind, n, SLOPE, "float32") for n in setting.depths]
        errors = [setting.gradient_error(kind, n) for n in setting.depths]
        least = [report.worst.decibels for report in reports]
        axes.plot(setting.depths, least, "o-", ms=4, color=COLOURS[kind], label=kind)
        rows += [[f"{kind}, dB", *[f"{d:.0f}" for d in least]], ["gradient error", *[f"{e:.0e}" for e in errors]]]
    decorate(axes)
    axes.set(xlabel="units (layer-wise) or couplings (hybrid)", xticks=setting.depths)
    axes.set_title(f"slope {SLOPE}", loc="left", fontsize=10)
    return table(["depth", *[str(n) for n in setting.depths]], rows)


def against_slope(setting: Setting, axes: Any) -> str:
    depth = setting.slopes_depth
    rows: list[list[Any]] = [[s, f"{10 * log10(1 / leaky_relu_alpha(s)):.1f}"] for s in setting.slopes]
    for kind in BRANCHES:
        reports = [measure(setting, kind, depth, s, "float32") for s in setting.slopes]
        if kind == "layer-wise":
            for row, report in zip(rows, reports, strict=True):
                losses = [r.lost for r in report.rows if r.layer == "InvertibleLeakyReLU" and isfinite(r.lost)]
                row.append(f"{mean(losses):.1f}")
        for row, report, slope in zip(rows, reports, setting.slopes, strict=True):
            row += [f"{report.worst.decibels:.0f}", f"{setting.gradient_error(kind, depth, slope):.0e}"]
        least = [report.worst.decibels for report in reports]
        axes.plot(setting.slopes, least, "o-", ms=4, color=COLOURS[kind], label=kind)
    decorate(axes)
    axes.set(xscale="log", xlabel="negative slope")
    axes.set_title(f"depth {depth}", loc="left", fontsize=10)
    head = ["slope", "formula, dB", "measured, dB", "layer-wise, dB", "gradient error", "hybrid, dB", "gradient error"]
    return table(head, rows)


def along_layers(setting: Setting, folder: Path) -> str:
    """Figures 10 and 13."""
    fig, axes = figure(2)
    lines = []
    for ax, kind in zip(axes, BRANCHES, strict=True):
        report = measure(setting, kind, setting.layers_depth, SLOPE, "float32")
        losses = [f"{layer} {lost:.0f} dB" for layer, lost in report.lost.items() if lost >= 1]
        lines.append(f"- {kind}, lost on the way back: {', '.join(losses)}")
        for chain in dict.fromkeys(row.chain for row in report.rows):
            places = [i for i, row in enumerate(report.rows) if row.chain == chain]
            inner = chain != "chain"
            colour, width = ("#5e4fa2", 1) if inner else (COLOURS[kind], 2)
            decibels = [report.rows[i].decibels for i in places]
            ax.plot(places, decibels, ".-", ms=3, color=colour, linewidth=width)
        ax.set(xlabel="step (backward goes from right to left)")
        decorate(ax)
        ax.set_title(f"{kind}, depth {setting.layers_depth}, slope {SLOPE}", loc="left", fontsize=10)
    axes[1].plot([], [], color="#5e4fa2", linewidth=1, label="within the branches of the couplings")
    axes[1].legend(frameon=False, fontsize=9, loc="lower right")
    low = min(ax.get_ylim()[0] for ax in axes)
    for ax in axes:
        ax.set_ylim(low, 170)
    fig.savefig(folder / "inversion_snr_layers.png")
    return "\n".join(lines)


def precisions(setting: Setting, folder: Path) -> str:
    fig, axes = figure(2)
    rows = []
    for ax, kind in zip(axes, BRANCHES, strict=True):
        for name in PRECISIONS:
            least = [measure(setting, kind, n, SLOPE, name).worst.decibels for n in setting.few_depths]
            ax.plot(setting.few_depths, least, "o-", ms=4, color=FORMATS[name], label=name)
            rows.append([f"{kind}, {name}", *[f"{d:.0f}" for d in least]])
        decorate(ax)
        ax.set(xlabel="units" if kind == "layer-wise" else "couplings", xticks=setting.few_depths)
        ax.set_title(f"{kind}, slope {SLOPE}", loc="left", fontsize=10)
    axes[1].legend(frameon=False, fontsize=9, loc=(0.55, 0.5))
    fig.savefig(folder / "inversion_snr_precision.png")
    return table(["lowest ratio in dB at depth", *[str(n) for n in setting.few_depths]], rows)


def decorate(axes: Any) -> None:
    """The limits of the drift guard."""
    for limit, text in ((40, "warns"), (20, "raises")):
        axes.axhline(limit, color="#cccccc", linewidth=1, linestyle="--", zorder=0)
        place = {"xy": (1, limit), "xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(text, xytext=(3, 0), va="center", fontsize=7, color="#777777", **place)
    axes.set(ylabel="signal to noise, dB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small and few networks, to see whether it runs")
    options = parser.parse_args()
    folder, setting = results(options.quick), Setting(options.quick)

    fig, (left, right) = figure(2)
    of_depth, of_slope = against_depth(setting, left), against_slope(setting, right)
    left.legend(frameon=False)
    fig.savefig(folder / "inversion_snr_depth.png")
    write(
        folder / "inversion_snr.md",
        "How exactly layer-wise invertible networks find back",
        f"Networks as initialised, nothing is trained; {setting.channels} channels, two channel poolings, batch "
        f"{setting.batch} of {setting.edge} x {setting.edge} normally distributed pixels, loss = sum of the outputs, "
        "invertible_eps 0.1. The ratio is the lowest of all inputs of layers that backward recomputes, 20 dB being a "
        "relative error of 0.1 and 40 dB one of 0.01 (dashed: the drift guard raises and warns). A unit is an "
        "invertible convolution, batch norm and leaky ReLU; a coupling of the hybrid has two of them in each branch "
        "(one in the first stage). Gradient error: `gradient_error` of the inverted beside the stored network, the "
        "largest of any parameter. It does not vanish at a high ratio: a value near zero that comes back with the "
        "other sign has another derivative (there is no such jump at slope 1).",
        "## What one layer loses\n\n![alpha](inversion_snr_alpha.png)",
        alphas(setting, folder),
        f"## Depth and slope\n\n![depth and slope](inversion_snr_depth.png)\n\nSlope {SLOPE}, float32:",
        of_depth,
        f"Depth {setting.slopes_depth}. Formula and measurement are what the inverse of one leaky ReLU loses: the "
        "formula's input is distributed evenly around zero, in the layer-wise network positive values are fewer and "
        "larger:",
        of_slope,
        "## Layer by layer\n\n![layers](inversion_snr_layers.png)",
        along_layers(setting, folder),
        "## Number formats\n\n![number formats](inversion_snr_precision.png)",
        "tf32 is done in software: float32 states, the factors of convolutions rounded to 10 bits of mantissa. Under "
        "autocast the state is float32 and the convolutions are computed in bfloat16; where the state is bfloat16 as "
        "well, every sum is rounded to 8 bits.",
        precisions(setting, folder),
    )


if __name__ == "__main__":
    main()
