"""The InvRes U-Nets and their baseline on the iSeg sample set, trained on the same patches, through the bundle.

    python benchmarks/segmentation.py [--quick] [--epochs N] [--output FOLDER]

Writes the sample set if there is none, trains the three networks (parameters matched within 10 %), evaluates them on
two unseen subjects, and leaves a table and the pictures. Sample data show that it works; they are not iSeg-2019, and no
score here compares with a published one.
"""

from __future__ import annotations

import re
import shutil
import statistics
import sys
import time
from functools import partial
from typing import Any

import torch
from common import machine, mean_scores, results, run_bundle, sample_data, table, take_turns, training_options

from monai_invertible.networks import FullyInvertibleUNet, PartiallyInvertibleUNet, PlainUNet

bundle = partial(run_bundle, "iseg_invres_segmentation")
# Name: class, override file, widths of the levels. 181, 187 and 182 thousand parameters.
NETWORKS: dict[str, tuple[type[torch.nn.Module], list[str], list[int]]] = {
    "3D U-Net": (PlainUNet, ["baseline"], [12, 24, 48]),
    "Partially-InvRes": (PartiallyInvertibleUNet, ["partially"], [16, 32, 64]),
    "Fully-InvRes": (FullyInvertibleUNet, [], [16, 32, 64]),
}
CLASSES = ("CSF", "GM", "WM")
PATCH, BATCH = (48, 48, 48), 2  # those of quick.json


def step_seconds(repeats: int) -> dict[str, float]:
    """Median processor time of a training step, the networks taking turns."""

    def step(network: torch.nn.Module) -> None:
        network(torch.rand(BATCH, 2, *PATCH)).square().mean().backward()

    steps = {
        name: partial(step, kind(3, 2, 4, widths, (2,) * (len(widths) - 1)))
        for name, (kind, _, widths) in NETWORKS.items()
    }
    return {name: statistics.median(p for _, p in pairs) for name, pairs in take_turns(steps, repeats).items()}


def main() -> None:
    options = training_options(__doc__, "a tiny sample set and one epoch: shows that it runs")
    output = (options.output or results(options.quick) / "segmentation").resolve()
    output.mkdir(parents=True, exist_ok=True)
    data = output / "sample_data"
    sample_data("iseg", data, **({"subjects": 3, "size": 48} if options.quick else {}))

    seconds = step_seconds(1 if options.quick else 7)
    rows = []
    for name, (kind, files, widths) in NETWORKS.items():
        folder = output / kind.__name__
        folder.mkdir(exist_ok=True)
        common: dict[str, Any] = {
            "dataset_dir": data,
            "folds": 5 if not options.quick else 3,  # two unseen subjects, or one
            "ckpt_dir": folder / "models",
            "output_dir": folder / "eval",
            "network_def#channels": widths,
            "network_def#strides": [2] * (len(widths) - 1),
        }
        epochs = options.epochs or (1 if options.quick else None)
        start = time.perf_counter()
        log = bundle(
            ["train", *files, "quick"], folder / "train.log", **common, **({"epochs": epochs} if epochs else {})
        )
        minutes = (time.perf_counter() - start) / 60
        bundle(["train", *files, "quick", "evaluate"], folder / "evaluate.log", overwrite=True, **common)
        live = float(re.findall(r"live_peak ([0-9.]+) MiB", log)[-1])
        parameters = sum(p.numel() for p in kind(3, 2, 4, widths, (2,) * (len(widths) - 1)).parameters())
        score = mean_scores(folder / "eval")
        rows.append(
            [
                name,
                f"{parameters / 1e3:.0f}",
                f"**{score['dice']:.3f}**",
                *(f"{score[f'dice_{c}']:.3f}" for c in CLASSES),
                f"{score['hd95']:.2f}",
                f"{score['hd100']:.1f}",
                f"{seconds[name]:.2f}",
                f"{live:.0f}",
                f"{minutes:.1f}",
            ]
        )
        for picture in (folder / "eval").glob("*.png"):
            shutil.copy(picture, output / f"{kind.__name__}_{picture.name}")
    head = ["", "parameters (k)", "Dice", *CLASSES, "HD95 (mm)", "HD100 (mm)", "step (s)", "peak of a step (MiB)"]
    text = "\n\n".join(
        [
            "# Infant brain tissue, sample data",
            table([*head, "training (minutes)"], rows),
            "Two subjects that were not trained on. Every network saw the same patches of 48 x 48 x 48 voxels of the "
            "other eight. Step: processor time of a training step of two patches, taking turns, median of 7."
            " Peak: the largest sum of living tensors in the first step of the training, without parameters and data.",
            f"`python benchmarks/segmentation.py {' '.join(sys.argv[1:])}`  \n{machine()}",
        ]
    )
    (output / "table.md").write_text(text + "\n")
    print(f"\n{text}\n\nPictures: {output}")


if __name__ == "__main__":
    main()
