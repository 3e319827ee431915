"""What benchmarks share: how memory and time are taken, the machine they ran on, and where table and figure go."""

from __future__ import annotations

import argparse
import csv
import datetime
import gc
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from torch import nn
from torch._subclasses import FakeTensorMode

from monai_invertible.memory import LiveBytes

__all__ = [
    "CHANNELS",
    "MODES",
    "TranslationStep",
    "activation_peak",
    "branch",
    "bundle_config",
    "figure",
    "machine",
    "mean_scores",
    "quartiles",
    "results",
    "run_bundle",
    "sample_data",
    "table",
    "take_turns",
    "training_options",
    "translation_step",
    "write",
]

CHANNELS = 32  # of a chain of couplings; a branch sees half of them
MODES = {"store": ("stored", "#777777"), "checkpoint": ("checkpointed", "#c98500"), "invert": ("inverted", "#00796b")}


def branch() -> nn.Module:
    """F or G of a 3D coupling."""
    half = CHANNELS // 2
    return nn.Sequential(nn.Conv3d(half, half, 3, padding=1), nn.InstanceNorm3d(half), nn.LeakyReLU(0.01))


def activation_peak(build: Callable[[], nn.Module], shape: Sequence[int]) -> int:
    """Peak in bytes of forward, mean square and backward on fake tensors, without parameters and their gradients."""
    with FakeTensorMode():
        network = build()
        for p in network.parameters():
            p.grad = torch.zeros_like(p)
        with LiveBytes() as live:
            x = torch.rand(*shape)  # held to the end, as a trainer holds its batch
            y = network(x)
            y.square().mean().backward()
        return live.peak


class TranslationStep(NamedTuple):
    """A training step of a pair of generators, in bytes."""

    parameters: int  # of the generators, a number
    model: int  # parameters, gradients and Adam's state of all networks
    kept: int  # by the generators' forward and their losses
    peak: int

    @property
    def rest(self) -> int:
        return self.peak - self.model


def translation_step(
    build: Callable[[], tuple[nn.Module, nn.ModuleDict | None, Any]], *shapes: Sequence[int]
) -> TranslationStep:
    """What ``TranslationTrainer`` does in an iteration, on fake tensors.

    ``build`` gives generators, discriminators (or None) and loss; ``shapes`` are those of x and y.
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        pair, critics, loss = build()
        weights = [*pair.parameters(), *(critics.parameters() if critics else ())]
        size = sum(p.numel() * p.element_size() for p in weights)
        with LiveBytes(include=weights) as live:
            x, y = (torch.rand(*shape) for shape in shapes)
            before = live.current
            if critics:
                critics.requires_grad_(False)
            images = loss.translate(pair, x, y)
            total = sum(loss.generator_terms(images, critics).values())
            kept = live.current - before
            total.backward()
            images = {name: image.detach() for name, image in images.items()}
            if critics:
                critics.requires_grad_(True)
                sum(loss.discriminator_terms(images, critics).values()).backward()
        adam = 2 * size
        return TranslationStep(sum(p.numel() for p in pair.parameters()), 2 * size + adam, kept, live.peak + adam)


def take_turns(steps: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each step, by the clock and of the processor.

    The contenders take turns and change their order, so that a busy machine disturbs all alike. A first round, which
    warms up, is not counted.
    """
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(repeats + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            gc.collect()
            clock, processor = time.perf_counter(), time.process_time()
            steps[name]()
            if turn:
                seconds[name].append((time.perf_counter() - clock, time.process_time() - processor))
    return seconds


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def results(quick: bool) -> Path:
    """The folder of the results; a quick run has one of its own and leaves the real ones alone."""
    folder = Path(__file__).parent / "results" / ("quick" if quick else "")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def training_options(documentation: str | None, quick: str) -> argparse.Namespace:
    """The command line of a benchmark that trains; ``quick`` is the help for ``--quick``."""
    parser = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--epochs", type=int, default=None, help="of every network, instead of the preset")
    parser.add_argument("--output", type=Path, default=None, help="folder of sample data and trained networks")
    return parser.parse_args()


def sample_data(kind: str, folder: Path, **options: Any) -> None:
    """Write a sample set, unless the folder is there."""
    if not folder.exists():
        arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
        command = [sys.executable, "-m", "monai_invertible", "sample-data", kind, str(folder), *arguments]
        subprocess.run(command, check=True)


def bundle_files(name: str, files: Sequence[str]) -> list[str]:
    """Paths of configuration files of a bundle."""
    configs = Path(__file__).resolve().parents[1] / "bundles" / name / "configs"
    return [str(configs / f"{file}.json") for file in files]


def bundle_config(name: str, files: Sequence[str], options: Mapping[str, Any]) -> ConfigParser:
    """A bundle's configuration with these of its files and options, to take single objects from."""
    parser = ConfigParser()
    parser.read_config(bundle_files(name, files))
    parser.update({key: str(value) if isinstance(value, Path) else value for key, value in options.items()})
    return parser


def run_bundle(name: str, files: Sequence[str], log: Path, **options: Any) -> str:
    """Run a bundle with these of its configuration files; the progress bar is shown, everything is in ``log``."""
    listed = "[" + ",".join(f"'{file}'" for file in bundle_files(name, files)) + "]"
    arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file", listed, *arguments]
    print("$ python " + " ".join(f'"{c}"' if " " in c or "[" in c else c for c in command[3:]), flush=True)
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        error = ""
        for chunk in iter(lambda: process.stderr.read(64), ""):  # type: ignore[union-attr]
            sys.stderr.write(chunk)
            sys.stderr.flush()
            error += chunk
        if process.wait():
            raise SystemExit(f"{Path(sys.argv[0]).name}: the command above failed; see {log}\n{error[-2000:]}")
    return log.read_text()


def mean_scores(folder: Path, filename: str = "scores.csv") -> dict[str, float]:
    """The means over subjects that a bundle's evaluation wrote."""
    with (folder / filename).open() as file:
        rows = csv.DictReader(file)
        names = (rows.fieldnames or [""])[0]
        row = next(row for row in rows if row[names] == "mean")
    return {key: float(value) for key, value in row.items() if key != names}


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
