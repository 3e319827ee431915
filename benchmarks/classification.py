"""Classification on the CIFAR-10 sample set: five networks, and inverted against stored activations.

    python benchmarks/classification.py [--quick] [--epochs N] [--output FOLDER]

Every network is trained through the bundle cifar10_hybrid_classification (its quick.json) on the same images in the
same order, and scored after its last epoch on images that were not trained on. Sample data show that it works; they are
not CIFAR-10, and no score here compares with a published one.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import bundle_config, mean_scores, results, run_bundle, sample_data, table, training_options, write

NAME = "cifar10_hybrid_classification"
bundle = partial(run_bundle, NAME)
STORE = {"network_def#backprop": "store"}
STEEP = {"network_def#negative_slope": 0.2}  # the paper's
# Name: override files, options.
NETWORKS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "ResNet": (["resnet"], {}),
    "RevNet": (["revnet"], {}),
    "i-RevNet": (["irevnet"], {}),
    "hybrid": ([], {}),
    "hybrid, stored": ([], STORE),
    "layer-wise": (["layerwise"], {}),
    "layer-wise, stored": (["layerwise"], STORE),
    "layer-wise, slope 0.2": (["layerwise", "unguarded"], STEEP),
    "layer-wise, slope 0.2, stored": (["layerwise"], {**STEEP, **STORE}),
}
HEAD = ["", "parameters (k)", "accuracy", "largest drift", "peak of a step (MiB)", "training (minutes)"]


def floors(options: Mapping[str, Any]) -> Iterator[list[str]]:
    """Rows of what needs no training: every network must beat it."""
    parser = bundle_config(NAME, ["train", "quick"], options)
    images, labels = {}, {}
    for part in ("train", "validate"):
        items = parser.get_parsed_content(f"{part}#data")
        images[part] = torch.stack([torch.from_numpy(item["image"]).float() for item in items])
        labels[part] = torch.tensor([item["label"] for item in items])
    classes = range(len(parser.get_parsed_content("classes")))
    colors = {part: pixels.mean(dim=(2, 3)) for part, pixels in images.items()}
    means = torch.stack([colors["train"][labels["train"] == label].mean(dim=0) for label in classes])
    neighbours = torch.cdist(images["validate"].flatten(1), images["train"].flatten(1)).argmin(dim=1)
    found = {
        "nearest mean colour of a class": torch.cdist(colors["validate"], means).argmin(dim=1),
        "nearest training image": labels["train"][neighbours],
    }
    for name, guess in found.items():
        yield [name, "-", f"{100 * (guess == labels['validate']).float().mean():.1f} %", "-", "-", "-"]


def train(files: list[str], folder: Path, options: Mapping[str, Any]) -> list[str]:
    """Row of a network after its last epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {**options, "ckpt_dir": folder / "models"}
    network = bundle_config(NAME, files, options).get_parsed_content("network_def")
    start = time.perf_counter()
    parameters = f"{sum(p.numel() for p in network.parameters()) / 1e3:.0f}"
    try:
        log = bundle(files, folder / "train.log", output_dir=folder / "training", **options)
    except SystemExit as failure:
        if "loss must be finite" not in str(failure):
            raise
        return [parameters, "diverged", "-", "-", "-"]
    minutes = (time.perf_counter() - start) / 60
    options |= {"checkpoint": folder / "models" / "resume.pt", "output_dir": folder / "eval", "overwrite": True}
    bundle([*files, "evaluate"], folder / "evaluate.log", **options)
    drift = [float(number) for number in re.findall(r"drift: .* relative error of ([\d.e+-]+|inf|nan)", log)]
    return [
        parameters,
        f"**{100 * mean_scores(folder / 'eval')['accuracy']:.1f} %**",
        f"{max(drift):.0e}" if drift else "-",
        re.findall(r"live_peak ([\d.]+) MiB", log)[-1],
        f"{minutes:.1f}",
    ]


def main() -> None:
    arguments = training_options(__doc__, "tiny data and networks, one epoch: shows that it runs")
    folder = results(arguments.quick)
    output = (arguments.output or folder / "classification").resolve()
    data = output / "sample_data"
    options: dict[str, Any] = {"dataset_dir": data}
    if arguments.quick:
        options |= {"epochs": 1, "batch_size": 20}
    if arguments.epochs is not None:
        options["epochs"] = arguments.epochs
    sample_data("cifar10", data, **({"images": 120} if arguments.quick else {}))

    rows = list(floors(options))
    for name, (overrides, changes) in NETWORKS.items():
        place = output / name.replace(", ", "_").replace(" ", "_")
        rows.append([name, *train(["train", *overrides, "quick"], place, {**options, **changes})])
    shutil.copy(output / "hybrid" / "eval" / "mistakes.png", folder / "classification.png")
    write(
        folder / "classification.md",
        "Tiles of ten pictures, sample data",
        table(HEAD, rows),
        "Images that were not trained on. One training each, with the same images, epochs, learning rate and seed, "
        "scored after the last epoch: nothing was selected on the images that are scored. Activations are recomputed "
        "by inversion unless stored; a ResNet stores all. Drift: the largest relative error of the recomputed input "
        "of a chain in any step. The inverted layer-wise network with slope 0.2 is trained without the guard, which "
        "stops at a drift of 0.1. Peak: the largest sum of living tensors in the first step of the training, without "
        "parameters and data.",
        "The most confident mistakes of the hybrid:\n\n![images, their class and what they were called]"
        "(classification.png)",
    )


if __name__ == "__main__":
    main()
