"""Your MONAI pipeline, one line changed: MONAI's U-Nets and the Fully invertible one, with as many parameters.

Each network is the ``network_def`` of a bundle; nothing else differs. The bundle iseg_invres_segmentation trains them
on the same patches of the iSeg sample set and scores them on two unseen subjects. Memory is simulated on fake tensors,
also for the largest patch that a budget allows; the time of a step is real, all networks in turns.

    python benchmarks/monai_unets.py [--quick] [--epochs N] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import mean_scores, results, run_bundle, table, take_turns, write
from monai.bundle import ConfigParser
from torch import nn

from monai_invertible.memory import MemoryReport, estimate_training_step, largest_patch

GIB = 2**30
BUDGETS = (8, 12, 16, 24)  # GiB
EDGE = 128  # of the patch whose step is simulated
TASK: dict[str, Any] = {"spatial_dims": 3, "in_channels": 2, "out_channels": 4}
UNET = {**TASK, "channels": [16, 32, 64, 128, 256], "strides": [2, 2, 2, 2], "num_res_units": 2}
FULL_UNET = {**TASK, "channels": [16, 16, 32, 64, 128, 256], "strides": [1, 2, 2, 2, 2], "num_res_units": 2}
CHECKPOINT_UNET = "monai.networks.nets.unet.CheckpointUNet"
FULLY = {"_target_": "monai_invertible.networks.FullyInvertibleUNet", **TASK, "strides": [2, 2, 2, 2]}
DYNUNET = {
    "kernel_size": [3, 3, 3, 3, 3],
    "strides": [1, 2, 2, 2, 2],
    "upsample_kernel_size": [2, 2, 2, 2],
    "filters": [16, 32, 64, 120, 232],
    "norm_name": ["instance", {"affine": True}],
}
NETWORKS: dict[str, dict[str, Any]] = {
    "UNet": {"_target_": "UNet", **UNET},
    "- CheckpointUNet": {"_target_": CHECKPOINT_UNET, **UNET},
    "UNet, first stride 1": {"_target_": "UNet", **FULL_UNET},
    "- CheckpointUNet, first stride 1": {"_target_": CHECKPOINT_UNET, **FULL_UNET},
    "SegResNet": {"_target_": "SegResNet", **TASK, "init_filters": 16},
    "DynUNet": {"_target_": "DynUNet", **TASK, **DYNUNET},
    "Fully, first level 8 wide": {**FULLY, "channels": [8, 32, 80, 160, 320]},
    "Fully, first level 20 wide": {**FULLY, "channels": [20, 40, 80, 160, 320]},
}
TRAINING: dict[str, Any] = {
    "spacing": [2.0, 2.0, 2.0],
    "roi_size": [48, 48, 48],
    "batch_size": 1,
    "patches_per_volume": 8,
    "epochs": 6,
    "learning_rate": 1e-3,
    "folds": 5,
    "overlap": 0.25,
    "num_workers": 0,
}
SCORES = ("dice", "dice_CSF", "dice_GM", "dice_WM")


def build(name: str) -> nn.Module:
    """As a bundle does it."""
    return ConfigParser({"network_def": NETWORKS[name]}).get_parsed_content("network_def")


def count_parameters() -> dict[str, int]:
    counts = {name: sum(p.numel() for p in build(name).parameters()) for name in NETWORKS}
    if max(counts.values()) > 1.1 * min(counts.values()):
        raise ValueError(f"monai_unets: parameters must agree within 10 %, got {counts}. Change the widths.")
    return counts


def simulate(name: str, edge: int) -> MemoryReport:
    return estimate_training_step(partial(build, name), (1, TASK["in_channels"], edge, edge, edge))


def step_seconds(names: Iterable[str], edge: int, repeats: int) -> dict[str, float]:
    """Median of real steps: forward, mean square, backward; the networks take turns."""
    image = torch.rand(1, TASK["in_channels"], edge, edge, edge)

    def step(network: nn.Module) -> None:
        network(image).square().mean().backward()
        network.zero_grad(set_to_none=True)  # the next in turn has the machine to itself

    seconds = take_turns({name: partial(step, build(name)) for name in names}, repeats)
    return {name: statistics.median(clock for clock, _ in taken) for name, taken in seconds.items()}


def train(name: str, folder: Path, data: Path, training: dict[str, Any]) -> list[float]:
    """Mean scores of the unseen subjects."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        **training,
        "val_interval": training["epochs"],
        "dataset_dir": data,
        "ckpt_dir": folder / "models",
        "output_dir": folder / "eval",
        "network_def": NETWORKS[name],
    }
    run_bundle("iseg_invres_segmentation", ["train"], folder / "train.log", **options)
    run_bundle("iseg_invres_segmentation", ["train", "evaluate"], folder / "evaluate.log", overwrite=True, **options)
    mean = mean_scores(folder / "eval")
    return [mean[score] for score in SCORES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two networks and little data, to see whether it runs")
    parser.add_argument("--epochs", type=int, default=TRAINING["epochs"], help="of every network")
    parser.add_argument("--output", type=Path, default=None, help="folder of sample data and trained networks")
    options = parser.parse_args()
    folder = results(options.quick)
    output = (options.output or folder / "monai_unets").resolve()
    names, budgets, subjects, size, repeats = list(NETWORKS), BUDGETS, 10, 128, 9
    training = {**TRAINING, "epochs": options.epochs}
    if options.quick:
        names, budgets, subjects, size, repeats = [names[0], names[-2]], BUDGETS[:1], 3, 48, 2
        training |= {"epochs": 1, "patches_per_volume": 1, "folds": 3, "spacing": [5.0] * 3, "roi_size": [32] * 3}
    data = output / "sample_data"
    if not data.exists():
        command = [sys.executable, "-m", "monai_invertible", "sample-data", "iseg", str(data)]
        subprocess.run([*command, "--subjects", str(subjects), "--size", str(size)], check=True)

    counts = count_parameters()
    memory = []
    for name in names:
        report = simulate(name, EDGE)
        patches = [largest_patch(partial(simulate, name), budget * GIB) for budget in budgets]
        memory.append([name, f"{report.activations / GIB:.2f}", f"{report.peak / GIB:.2f}", *patches])
    edge = training["roi_size"][0]
    seconds = step_seconds(names, edge, repeats)
    quality = []
    for name in names:
        scores = ["as above"] + ["-"] * 3
        if "Checkpoint" not in name:
            means = train(name, output / name.replace(", ", "_").replace(" ", "_"), data, training)
            scores = [f"{mean:.3f}" for mean in means]
        quality.append([name, f"{counts[name] / 1e6:.2f}", *scores, f"{seconds[name]:.2f}"])
    unseen = subjects // training["folds"]
    steps = training["epochs"] * training["patches_per_volume"] * (subjects - unseen)
    write(
        folder / "monai_unets.md",
        "MONAI's U-Nets and the Fully invertible one, parameters matched",
        "UNet and SegResNet as MONAI's tutorials have them, 16 channels first; the others as wide as the same number "
        "of parameters allows (within 10 %). CheckpointUNet is MONAI's UNet with checkpointing of its levels: the same "
        "results. The first convolution of UNet has stride 2: all but its last layer work at half the resolution. "
        '"First stride 1" is a UNet with one more level, at the full resolution, where all the others work.',
        f"## Memory\n\nSimulated on fake tensors: a step with one patch of {EDGE}³ and two modalities, float32, with "
        "parameters, gradients and Adam's state, in GiB; and the edge of the largest cubic patch, a multiple of 16, "
        "whose step stays within a budget. Tensors only: a card also needs room for its context, workspaces and "
        "allocator.",
        table(["", "kept by forward", "peak", *(f"largest patch, {budget} GiB" for budget in budgets)], memory),
        f"## Quality and time\n\nDice of {unseen} unseen subject(s) of the iSeg sample set ({subjects} subjects, "
        f"voxels of {training['spacing'][0]:g} mm): one training each on the same {steps} patches of {edge}³, one at a "
        f"time, with Adam {TRAINING['learning_rate']:g} and a cosine schedule; nothing was tuned for any of them. "
        f"Step: median of {repeats}, all networks in turns, batch 1. The sample set is simulated and no score on it "
        "compares with a published one; one training is one draw.",
        table(["", "parameters, million", "Dice", "CSF", "GM", "WM", "step, seconds"], quality),
    )


if __name__ == "__main__":
    main()
