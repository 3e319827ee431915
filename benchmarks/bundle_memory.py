"""Memory of one training step of every network of the fastMRI bundle, as its configurations have it (simulated).

The table of the bundle's README is this one.

    python benchmarks/bundle_memory.py [--quick]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

from common import results, table, write
from monai.bundle import ConfigParser
from torch import nn

from monai_invertible.memory import estimate_training_step

CONFIGS = Path(__file__).resolve().parents[1] / "bundles" / "fastmri_irim_reconstruction" / "configs"
SLICE, VOLUME = (480, 320), (32, 480, 320)
ROWS: list[tuple[str, list[str], dict[str, Any], tuple[int, ...], int]] = [
    ("i-RIM 2D (`train.json`)", [], {}, SLICE, 8),
    ("- with `--network_def#backprop checkpoint`", [], {"network_def#backprop": "checkpoint"}, SLICE, 8),
    ("- with `--network_def#backprop store`", [], {"network_def#backprop": "store"}, SLICE, 8),
    ("i-RIM 2D, `small.json`", ["small"], {}, SLICE, 8),
    ("RIM (`rim.json`)", ["rim"], {}, SLICE, 8),
    ("U-Net (`unet.json`)", ["unet"], {}, SLICE, 8),
    ("i-RIM 3D (`volume.json`)", ["volume"], {}, VOLUME, 1),
    ("i-RIM 3D, `small.json`", ["volume", "small"], {}, VOLUME, 1),
]


def network(files: list[str], overrides: dict[str, Any]) -> nn.Module:
    parser = ConfigParser()
    parser.read_config([CONFIGS / f"{name}.json" for name in ("train", *files)])
    parser.update(overrides)
    return parser.get_parsed_content("network_def")


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    rows = []
    for name, files, overrides, size, batch in ROWS[:1] if quick else ROWS:
        report = estimate_training_step(partial(network, files, overrides), (batch, 1, *size, 2))
        sizes = [f"{n / 1e9:.2f} GB" for n in (report.activations, report.peak)]
        rows.append([name, " x ".join(map(str, size)) + f", {batch}", *sizes])
    write(
        results(quick) / "bundle_memory.md",
        "Memory of a training step of the fastMRI bundle (simulated)",
        "Living tensors in GB (10^9 bytes), float32, with parameters, gradients and Adam's state, counted on fake "
        "tensors: not a measurement of a GPU.",
        table(["network", "crop, batch", "kept by forward", "peak of the step"], rows),
    )


if __name__ == "__main__":
    main()
