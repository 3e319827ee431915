"""Memory of training the invertible U-Nets and their baseline, at the sizes of the paper; and the time of a step.

Yamazaki, Rathour and Le, Invertible Residual Network with Regularization for Effective Medical Image Segmentation,
2021, arXiv 2103.09042, report the GPU memory of training on BraTS and iSeg. Here the same steps are simulated on fake
tensors, where only living tensors count, so the two are different quantities; the order and the ratios compare. The
paper says neither the widths of its networks nor the batch of iSeg: these are ours, with parameters matched.

    python benchmarks/invres_memory.py [--quick] [--repeats N]
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import MODES, activation_peak, figure, quartiles, results, table, take_turns, write
from torch import nn

from monai_invertible.memory import MemoryReport, estimate_training_step
from monai_invertible.networks import FullyInvertibleUNet, PartiallyInvertibleUNet, PlainUNet

GB = 1e9  # as the paper counts
WIDTHS, STRIDES = (32, 64, 128, 256, 512), (2, 2, 2, 2)
NETWORKS: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "U-Net": (PlainUNet, (32, 64, 128, 192, 288)),
    "Partially": (PartiallyInvertibleUNet, WIDTHS),
    "Fully": (FullyInvertibleUNet, WIDTHS),
}
COUPLINGS = (1, 2, 4, 8)
IN_PLACE = ("leakyrelu", {"negative_slope": 0.01, "inplace": True})


class Task(NamedTuple):
    modalities: int
    classes: int
    batch: int
    edge: int
    paper: tuple[float, ...]  # GB of the three networks, as the paper measured them on a GPU

    def shape(self) -> tuple[int, ...]:
        return (self.batch, self.modalities, *(self.edge,) * 3)

    def network(self, name: str, backprop: str, vae: bool = False, **options: Any) -> nn.Module:
        kind, channels = NETWORKS[name]
        size = (self.edge,) * 3 if vae else None
        return kind(3, self.modalities, self.classes, channels, STRIDES, vae_size=size, backprop=backprop, **options)


TASKS = {
    "BraTS": Task(modalities=4, classes=3, batch=1, edge=128, paper=(6.8, 5.7, 3.1)),
    "iSeg": Task(modalities=2, classes=4, batch=4, edge=64, paper=(4.18, 3.60, 2.12)),
}
SPEED = Task(modalities=2, classes=4, batch=1, edge=64, paper=())


def modes(name: str) -> tuple[str, ...]:
    """The ways in which a network can be trained."""
    return ("store", "checkpoint") if name == "U-Net" else tuple(MODES)


def simulate(task: Task, vae: bool, optimizer: str | None = "adam") -> dict[tuple[str, str], MemoryReport]:
    return {
        (name, mode): estimate_training_step(partial(task.network, name, mode, vae), task.shape(), optimizer=optimizer)
        for name in NETWORKS
        for mode in modes(name)
    }


def check_parameters(reports: dict[tuple[str, str], MemoryReport]) -> None:
    counts = {name: reports[name, "store"].parameters / 4 for name in NETWORKS}
    if max(counts.values()) > 1.1 * min(counts.values()):
        raise ValueError(f"invres_memory: parameters must agree within 10 %, got {counts}. Change the widths.")


def memory_table(task: Task, plain: dict[Any, MemoryReport], regularized: dict[Any, MemoryReport]) -> str:
    rows = []
    for reports, suffix in ((plain, ""), (regularized, ", VAE branch")):
        for name, paper in zip(NETWORKS, task.paper, strict=True):
            peaks = {mode: reports[name, mode].peak for mode in modes(name)}
            best, own = peaks.get("invert"), peaks["store"]
            cells = [f"{peaks[mode] / GB:.2f}" if mode in peaks else "-" for mode in MODES]
            ratios = [f"{best / other:.2f}" if best else "-" for other in (own, reports["U-Net", "store"].peak)]
            parameters = f"{reports[name, 'store'].parameters / 4e6:.1f}"
            rows.append([name + suffix, parameters, *cells, *ratios, "-" if suffix else f"{paper:.2f}"])
    head = ["peak of a step, GB", "parameters, million", *(label for label, _ in MODES.values())]
    return table([*head, "inverted / own stored", "inverted / U-Net stored", "paper's GPU"], rows)


def in_place_table(task: Task, plain: dict[Any, MemoryReport]) -> str:
    rows = []
    for name in NETWORKS:
        row = [name]
        for mode in MODES:
            if mode in modes(name):
                changed = estimate_training_step(partial(task.network, name, mode, act=IN_PLACE), task.shape()).peak
                row.append(f"{plain[name, mode].peak / GB:.2f} -> {changed / GB:.2f}")
            else:
                row.append("-")
        rows.append(row)
    return table(["peak of a step, GB", *(label for label, _ in MODES.values())], rows)


def coupling_peaks(task: Task, couplings: tuple[int, ...]) -> dict[tuple[str, str], list[float]]:
    return {
        (name, mode): [
            activation_peak(partial(task.network, name, mode, num_res_units=n), task.shape()) / GB for n in couplings
        ]
        for name in ("Partially", "Fully")
        for mode in MODES
    }


def step_times(task: Task, repeats: int) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Seconds of real steps: forward, mean square, backward; all networks and modes in turns."""
    image = torch.rand(task.shape(), generator=torch.Generator().manual_seed(0))

    def training_step(network: nn.Module) -> None:
        network(image).square().mean().backward()
        network.zero_grad(set_to_none=True)  # the next in turn has the machine to itself

    steps = {}
    for name in NETWORKS:
        for mode in modes(name):
            torch.manual_seed(0)
            steps[f"{name} {mode}"] = partial(training_step, task.network(name, mode))
    seconds = take_turns(steps, repeats)
    return {name: {mode: seconds[f"{name} {mode}"] for mode in modes(name)} for name in NETWORKS}


def time_table(times: dict[str, dict[str, list[tuple[float, float]]]]) -> str:
    rows = []
    for name, own in times.items():
        row = [name, f"{statistics.median(clock for clock, _ in own['store']):.2f}"]
        for mode in ("checkpoint", "invert"):
            ratios = [a[0] / b[0] for a, b in zip(own.get(mode, []), own["store"], strict=False)]
            low, middle, high = quartiles(ratios) if ratios else (0.0, 0.0, 0.0)
            row.append(f"{middle:.2f} ({low:.2f} to {high:.2f})" if ratios else "-")
        rows.append(row)
    return table(["", "stored, seconds", "checkpointed, stored = 1", "inverted, stored = 1"], rows)


def picture(path: Path, task: Task, reports: dict[Any, MemoryReport], counts: Any, peaks: dict[Any, Any]) -> None:
    fig, (left, right) = figure(2)
    for i, (name, paper) in enumerate(zip(NETWORKS, task.paper, strict=True)):
        for j, (mode, (label, colour)) in enumerate(MODES.items()):
            if mode in modes(name):
                value = reports[name, mode].peak / GB
                left.bar(i + 0.27 * (j - 1), value, 0.25, color=colour, label=label if i == 1 else None)
                left.text(i + 0.27 * (j - 1), value, f"{value:.1f}", ha="center", va="bottom", fontsize=9)
        place = i - 0.27 if name == "U-Net" else i + 0.27  # above the mode that the paper used
        left.plot(place, paper, "o", markerfacecolor="none", color="black", label="paper's GPU" if i == 1 else None)
    left.set_xticks(range(len(NETWORKS)), list(NETWORKS))
    left.set(ylabel="peak of a training step, GB", ylim=(0, 1.3 * max(task.paper)))
    size = " x ".join(map(str, task.shape()[1:]))
    left.set_title(f"{size}: simulated (bars), paper's GPU (○)", loc="left", fontsize=10)
    left.legend(frameon=False, fontsize=9, ncols=2, loc="upper right")
    for mode, (label, colour) in MODES.items():
        values = peaks["Fully", mode]
        right.plot(counts, values, marker="o", markersize=4, color=colour)
        text = f"{label}, {values[-1]:.1f}"
        right.annotate(text, (counts[-1], values[-1]), (7, 0), textcoords="offset points", color=colour, va="center")
    right.set(xlabel="couplings a level", ylabel="peak of the activations, GB", xticks=counts)
    right.set(xlim=(0, counts[-1] * 1.45), ylim=(0, None))
    right.set_title("Fully invertible U-Net (simulated)", loc="left", fontsize=10)
    right.grid(axis="y", color="#e6e6e6")
    fig.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short and small, to see whether it runs")
    parser.add_argument("--repeats", type=int, help="steps of each network that are timed (default 15; quick 2)")
    options = parser.parse_args()
    folder = results(options.quick)
    speed = SPEED._replace(edge=32) if options.quick else SPEED
    repeats = options.repeats or (2 if options.quick else 15)
    couplings = COUPLINGS[:2] if options.quick else COUPLINGS
    tasks = {"BraTS": TASKS["BraTS"]} if options.quick else TASKS

    parts, reports = [], {}
    for title, task in tasks.items():
        plain, regularized = simulate(task, vae=False), simulate(task, vae=True)
        check_parameters(plain)
        reports[title] = plain
        batch = f"{task.modalities} modalities, {task.classes} outputs, batch {task.batch}"
        bare = simulate(task, vae=False, optimizer=None)
        inverted, stored, baseline = (
            bare[key].peak for key in (("Fully", "invert"), ("Fully", "store"), ("U-Net", "store"))
        )
        parts += [
            f"## {title}: patches of {task.edge}³, {batch}",
            memory_table(task, plain, regularized),
            f"Without Adam's state, Fully takes {inverted / GB:.2f} GB inverted: {inverted / stored:.2f} of its own "
            f"stored step, {inverted / baseline:.2f} of the U-Net's.",
        ]
    peaks = coupling_peaks(TASKS["BraTS"], couplings)
    rows = [[f"{n}, {MODES[m][0]}", *(f"{v:.2f}" for v in values)] for (n, m), values in peaks.items()]
    write(
        folder / "invres_memory.md",
        "Memory of training the invertible U-Nets",
        "Simulated: the living tensors of forward and backward on fake tensors, float32, GB = 10^9 bytes. Counted are "
        "the image, parameters, gradients, Adam's state (twice the parameters) and activations; not the workspace of "
        "kernels or the reserve of an allocator. The paper's column was measured on a GPU, with all that a GPU adds, "
        "for networks whose widths it does not say: another quantity, of which only order and ratios compare.",
        f"Widths of the levels: {WIDTHS}, two couplings a level; U-Net {NETWORKS['U-Net'][1]}, so that the parameters "
        "agree within 10 % (without the VAE branch, which is wider on a wider bottleneck). The loss is a mean square.",
        *parts,
        "## Couplings a level\n\nThe BraTS step again, without the VAE branch. Here parameters and their gradients are "
        "left out, for they grow with the couplings, as they must. Peak, GB:",
        table(["couplings a level", *map(str, couplings)], rows),
        "## Activations in place\n\nThe BraTS step of the first table, and the same with "
        '`act=("leakyrelu", {"inplace": True})`, which overwrites what the norm returned:',
        in_place_table(TASKS["BraTS"], reports["BraTS"]),
        f"## Time\n\nReal steps of {speed.edge}³, {speed.modalities} modalities, batch 1: medians of {repeats} steps, "
        "all networks and modes in turns in one run; each ratio is to the stored step of the same turn, with "
        "quartiles.",
        time_table(step_times(speed, repeats)),
    )
    picture(folder / "invres_memory.png", TASKS["BraTS"], reports["BraTS"], couplings, peaks)


if __name__ == "__main__":
    main()
