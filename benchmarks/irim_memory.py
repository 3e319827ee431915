"""Memory of training the i-RIM and the RIM at the sizes of the paper, against the number of inference steps.

Table 1 of Putzky and Welling, Invert to Learn to Invert, NeurIPS 2019, was measured on a GPU; here the same step is
simulated on fake tensors, where only living tensors count. So the offsets differ (the paper's include workspace and
allocator), and the growth with T is what the two have in common. ``--real`` adds steps that are truly computed on the
CPU, in 3D at a quarter of each in-plane side, with the peak that the operating system reports.

    python benchmarks/irim_memory.py [--quick] [--real]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import torch
from common import figure, results, table, write
from torch import nn

from monai_invertible.memory import MemoryReport, estimate_training_step, process_peak_bytes, reset_process_peak
from monai_invertible.networks.nets import InvertibleRIM, RecurrentInferenceMachine

GB = 1e9  # as the paper counts
STEPS = (1, 4, 8)
SLICE, VOLUME, SMALL_VOLUME = (480, 320), (32, 480, 320), (32, 120, 80)
PAPER = {
    "RIM 2D": (2.65, 6.01, 10.49),
    "i-RIM 2D, inverted": (2.47, 2.49, 2.51),
    "i-RIM 3D, inverted": (11.51, 11.76, 11.89),
}
COLOURS = {"RIM": "#c98500", "stored": "#777777", "inverted": "#00796b"}


def irim(size: tuple[int, ...], steps: int, backprop: str) -> nn.Module:
    return InvertibleRIM(spatial_dims=len(size), steps=steps, backprop=backprop)  # the paper's sizes are the default


def shape(size: tuple[int, ...]) -> tuple[int, ...]:
    """Of single-coil k-space."""
    return (1, 1, *size, 2)


def simulate(steps: tuple[int, ...]) -> dict[str, dict[int, MemoryReport]]:
    networks = {
        "RIM 2D": (SLICE, lambda t: RecurrentInferenceMachine(spatial_dims=2, steps=t)),
        "i-RIM 2D, stored": (SLICE, lambda t: irim(SLICE, t, "store")),
        "i-RIM 2D, inverted": (SLICE, lambda t: irim(SLICE, t, "invert")),
        "i-RIM 3D, stored": (VOLUME, lambda t: irim(VOLUME, t, "store")),
        "i-RIM 3D, inverted": (VOLUME, lambda t: irim(VOLUME, t, "invert")),
    }
    return {
        name: {t: estimate_training_step(lambda t=t, make=make: make(t), shape(size)) for t in steps}  # type: ignore[misc]
        for name, (size, make) in networks.items()
    }


def real_step(size: tuple[int, ...], steps: int) -> dict[str, Any]:
    """One training step with Adam in a process of its own; bytes and seconds."""
    command = [sys.executable, __file__, "--worker", json.dumps([size, steps])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def worker(size: tuple[int, ...], steps: int) -> dict[str, Any]:
    torch.manual_seed(0)
    network = irim(size, steps, "invert")
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    tiny = torch.rand(1, 1, *(1,) * (len(size) - 2), 16, 16, 2)
    for _ in range(2):  # libraries, gradients and the optimizer's state come into being
        step(network, optimizer, tiny)
    kspace = torch.rand(shape(size))
    reset_process_peak()
    before = process_peak_bytes()
    start = time.perf_counter()
    loss = step(network, optimizer, kspace)
    seconds = time.perf_counter() - start
    peak = process_peak_bytes()
    if before is None or peak is None:
        raise RuntimeError("irim_memory --real: this system does not report the peak of a process. Run it on Linux.")
    return {"before": before, "peak": peak, "seconds": seconds, "loss": loss}


def step(network: nn.Module, optimizer: torch.optim.Optimizer, kspace: torch.Tensor) -> float:
    optimizer.zero_grad()
    loss = network(kspace).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="at most two inference steps")
    parser.add_argument("--real", action="store_true", help="also compute 3D training steps on the CPU (minutes)")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(tuple(options.worker[0]), options.worker[1])))
        return

    folder = results(options.quick)
    steps = (1, 2) if options.quick else STEPS
    reports = simulate(steps)
    rows = []
    for name, by_steps in reports.items():
        for t, r in by_steps.items():
            paper = PAPER[name][STEPS.index(t)] if name in PAPER and t in STEPS else "-"
            sizes = [f"{size / GB:.3f}" for size in (r.parameters, r.activations, r.peak)]
            rows.append([name, t, *sizes, paper])
    growth = []
    for name, by_steps in reports.items():
        first, last = steps[0], steps[-1]
        slope = [
            (getattr(by_steps[last], field) - getattr(by_steps[first], field)) / (last - first) / GB
            for field in ("activations", "peak")
        ]
        paper = f"{(PAPER[name][-1] - PAPER[name][0]) / (STEPS[-1] - STEPS[0]):.4f}" if name in PAPER else "-"
        growth.append([name, *[f"{s:.4f}" for s in slope], paper])
    parts = [
        f"2D: k-space of {' x '.join(map(str, SLICE))}; 3D: {' x '.join(map(str, VOLUME))}; a state of 64 channels, "
        "batch 1, float32, Adam. GB = 10^9 bytes. Simulated: living tensors of forward and backward, with parameters, "
        "gradients and the optimizer's state, on fake tensors. The paper's column (Table 1, training) was measured on "
        "a GPU, with all that a GPU adds; the two are not the same quantity, and only the growth with T compares.",
        table(["", "T", "parameters", "kept by forward", "peak of the step", "paper's GPU"], rows),
        "Growth per inference step, GB. Each step of the i-RIM has weights of its own, so its peak grows by "
        "parameters, gradients and two tensors of Adam:",
        table(["", "kept by forward", "peak of the step", "paper's GPU"], growth),
    ]
    if options.real:
        size = SMALL_VOLUME
        real = []
        for t in steps[-1:]:
            r = real_step(size, t)
            own = estimate_training_step(lambda t=t: irim(size, t, "invert"), shape(size))  # type: ignore[misc]
            held = own.parameters + own.optimizer + own.gradients
            cells = (r["peak"], r["peak"] - r["before"], own.peak, own.peak - held)
            real.append(["i-RIM 3D, inverted", t, *[f"{c / GB:.3f}" for c in cells], f"{r['seconds']:.0f}"])
        parts += [
            f"A real training step on the CPU, k-space of {' x '.join(map(str, size))}, a state of "
            f"{64 * 4 * size[0] * size[1] * size[2] / GB:.4f} GB. The process's peak includes the interpreter, the "
            "libraries and the workspace of the kernels; the rise is over what the process held before the step, "
            "where parameters, gradients and optimizer existed.",
            table(["", "T", "process peak", "rise in the step", "simulated peak", "simulated rise", "seconds"], real),
        ]
    write(folder / "irim_memory.md", "Memory of training the i-RIM against the number of inference steps", *parts)

    fig, axes = figure(2)
    for ax, dims in zip(axes, ("2D", "3D"), strict=True):
        for name, by_steps in reports.items():
            if dims not in name:
                continue
            label = name.replace(f" {dims}", "")
            colour = next(c for key, c in COLOURS.items() if key in label.split(", ")[-1])
            values = [r.peak / GB for r in by_steps.values()]
            ax.plot(steps, values, marker="o", color=colour)
            text = f"{label}, {values[-1]:.1f}"
            ax.annotate(text, (steps[-1], values[-1]), (7, 0), textcoords="offset points", color=colour, va="center")
            if name in PAPER and not options.quick:
                ax.plot(STEPS, PAPER[name], linestyle="none", marker="o", markerfacecolor="none", color=colour)
        ax.set(xlabel="inference steps T", ylabel="peak of a training step, GB", xticks=steps)
        ax.set(xlim=(0, steps[-1] * 1.5), ylim=(0, None))
        ax.set_title(f"{dims}: simulated (●), paper's GPU (○)", loc="left", fontsize=10)
        ax.grid(axis="y", color="#e6e6e6")
    fig.savefig(folder / "irim_memory.png")


if __name__ == "__main__":
    main()
