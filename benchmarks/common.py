"""What benchmarks share: the branch of a coupling, the machine they ran on, and where table and figure go."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["CHANNELS", "branch", "figure", "machine", "results", "table", "write"]

CHANNELS = 32  # of a chain of couplings; a branch sees half of them


def branch() -> nn.Module:
    """F or G of a 3D coupling."""
    half = CHANNELS // 2
    return nn.Sequential(nn.Conv3d(half, half, 3, padding=1), nn.InstanceNorm3d(half), nn.LeakyReLU(0.01))


def results(quick: bool) -> Path:
    """The folder of the results; a quick run has one of its own and leaves the real ones alone."""
    folder = Path(__file__).parent / "results" / ("quick" if quick else "")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def machine() -> str:
    """One line: date, processor, cores, threads, versions."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return (
        f"{datetime.date.today().isoformat()}; {model}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s); "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def write(path: Path, title: str, *parts: str) -> None:
    """Write a Markdown file, with the command and the machine at its end, and print it."""
    command = " ".join(["python", f"benchmarks/{path.stem}.py", *sys.argv[1:]])
    text = "\n\n".join([f"# {title}", *parts, f"`{command}`  \n{machine()}"]) + "\n"
    path.write_text(text)
    print(text)


def figure(columns: int = 1) -> tuple[Any, Any]:
    """A light figure with ``columns`` plots side by side, without a frame."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 150})
    return plt.subplots(1, columns, figsize=(7 if columns == 1 else 5 * columns, 4.2), layout="constrained")
