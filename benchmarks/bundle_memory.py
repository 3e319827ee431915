"""Memory of one training step of every network of every bundle, as its configurations have it (simulated).

The tables in the bundles' READMEs are these.

    python benchmarks/bundle_memory.py [--quick]
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from common import results, table, write
from monai.bundle import ConfigParser

from monai_invertible.memory import estimate_training_step

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
CHECKPOINT = {"network_def#backprop": "checkpoint"}
STORE = {"network_def#backprop": "store"}
SEGMENTATION: list[tuple[str, list[str], dict[str, str]]] = [
    ("Fully-InvRes (`train.json`)", [], {}),
    ("- with `--network_def#backprop checkpoint`", [], CHECKPOINT),
    ("- with `--network_def#backprop store`", [], STORE),
    ("- with `vae.json`", ["vae"], {}),
    ("Partially-InvRes (`partially.json`)", ["partially"], {}),
    ("- with `--network_def#backprop store`", ["partially"], STORE),
    ("- with `vae.json`", ["partially", "vae"], {}),
    ("3D U-Net (`baseline.json`)", ["baseline"], {}),
]
ROWS: dict[str, list[tuple[str, list[str], dict[str, str]]]] = {  # of each bundle: name, override files, overrides
    "fastmri_irim_reconstruction": [
        ("i-RIM 2D (`train.json`)", [], {}),
        ("- with `--network_def#backprop checkpoint`", [], CHECKPOINT),
        ("- with `--network_def#backprop store`", [], STORE),
        ("i-RIM 2D, `small.json`", ["small"], {}),
        ("RIM (`rim.json`)", ["rim"], {}),
        ("U-Net (`unet.json`)", ["unet"], {}),
        ("i-RIM 3D (`volume.json`)", ["volume"], {}),
        ("i-RIM 3D, `small.json`", ["volume", "small"], {}),
    ],
    "brats_invres_segmentation": SEGMENTATION,
    "iseg_invres_segmentation": SEGMENTATION,
}


def row(bundle: str, name: str, files: list[str], overrides: dict[str, str]) -> list[str]:
    parser = ConfigParser()
    parser.read_config([BUNDLES / bundle / "configs" / f"{file}.json" for file in ("train", *files)])
    parser.update(overrides)
    batch, size = parser["batch_size"], parser["roi_size"]
    channels = parser.get("network_def#in_channels")
    shape = (batch, channels, *size) if channels else (batch, 1, *size, 2)  # an image, or the k-space of a coil
    report = estimate_training_step(partial(parser.get_parsed_content, "network_def"), shape)
    sizes = [f"{n / 1e9:.2f} GB" for n in (report.activations, report.peak)]
    return [name, " x ".join(map(str, size)) + f", {batch}", *sizes]


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    parts = []
    for bundle, rows in ROWS.items():
        head = ["network", "patch, batch", "kept by forward", "peak of the step"]
        parts += [f"## {bundle}", table(head, [row(bundle, *entry) for entry in (rows[:1] if quick else rows)])]
    write(
        results(quick) / "bundle_memory.md",
        "Memory of a training step of the bundles (simulated)",
        "Living tensors in GB (10^9 bytes), float32, with parameters, gradients and Adam's state, counted on fake "
        "tensors: not a measurement of a GPU.",
        *parts,
    )


if __name__ == "__main__":
    main()
