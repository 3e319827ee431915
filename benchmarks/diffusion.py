"""The invertible diffusion U-Net on the BraTS sample set: beside itself stored, MONAI's network, and without its parts.

    python benchmarks/diffusion.py [--quick] [--epochs N] [--output FOLDER]

Every network is trained through the bundle brats_idm_generation (its quick.json, 32^3 voxels) on the same volumes,
times and noise, and scored by the noise that it predicts for unseen subjects. Its samples are left as pictures. Sample
data show that it works; they are not BraTS, and no score here compares with a published one.
"""

from __future__ import annotations

import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from common import bundle_config, mean_scores, results, run_bundle, sample_data, table, training_options, write

NAME = "brats_idm_generation"
bundle = partial(run_bundle, NAME)
MONAI = {
    "_target_": "DiffusionModelUNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 1,
    "channels": [16, 24, 40],
    "num_res_blocks": 1,
    "attention_levels": [False, False, False],
    "norm_num_groups": 8,
}
NETWORKS: dict[str, dict[str, Any]] = {
    "IDM, inverted": {},
    "IDM, stored": {"network_def#backprop": "store"},
    "IDM at full resolution, inverted": {"network_def#bookend_stride": 1},
    "IDM at full resolution, stored": {"network_def#bookend_stride": 1, "network_def#backprop": "store"},
    "DiffusionModelUNet": {"network_def": MONAI},
    "IDM without bookends": {"network_def#bookends": False},
    "IDM without attention": {"network_def#attention": ""},
    "IDM with squeeze for learned down-sampling": {"network_def#downsample": "squeeze"},
}
TIMES = (100, 300, 500, 700, 900)


def count_parameters(changes: dict[str, Any]) -> int:
    """Of the network of quick.json with these changes."""
    network = bundle_config(NAME, ["train", "quick"], changes).get_parsed_content("network_def")
    return sum(p.numel() for p in network.parameters())


def train(folder: Path, **options: Any) -> list[str]:
    """Errors of the predicted noise, the peak of a step, minutes; the samples are in ``folder/eval``."""
    folder.mkdir(parents=True, exist_ok=True)
    options["ckpt_dir"] = folder / "models"
    start = time.perf_counter()
    log = bundle(["train", "quick"], folder / "train.log", output_dir=folder / "training", **options)
    minutes = (time.perf_counter() - start) / 60
    files = ["train", "quick", "evaluate"]
    bundle(files, folder / "evaluate.log", output_dir=folder / "eval", overwrite=True, **options)
    errors = mean_scores(folder / "eval", "noise.csv")
    peak = float(re.findall(r"live_peak ([0-9.]+) MiB", log)[-1])
    shown = [errors["noise_mse"], *(errors[f"noise_mse_{t}"] for t in TIMES)]
    return [
        *(f"{error:.6f}" if i == 0 else f"{error:.3f}" for i, error in enumerate(shown)),
        f"{peak:.0f}",
        f"{minutes:.1f}",
    ]


def main() -> None:
    options = training_options(__doc__, "two networks, tiny data, one epoch: shows that it runs")
    folder = results(options.quick)
    output = (options.output or folder / "diffusion").resolve()
    data = output / "sample_data"
    networks, size = NETWORKS, {"subjects": 10, "size": 80}
    changes: dict[str, Any] = {} if options.epochs is None else {"epochs": options.epochs}
    if options.quick:
        networks = dict(list(NETWORKS.items())[:2])
        size = {"subjects": 5, "size": 40}
        changes = {"epochs": 1, "patches_per_volume": 1, "val_interval": 1, "steps": 2, "folds": 2, **changes}
    counts = {name: count_parameters(settings) for name, settings in networks.items()}
    if max(counts.values()) > 1.1 * min(counts.values()):
        raise ValueError(f"diffusion: parameters must agree within 10 %, got {counts}. Change the widths.")
    sample_data("brats", data, **size)

    rows = []
    for name, settings in networks.items():
        network = output / name.replace(", ", "_").replace(" ", "_")
        scores = train(network, dataset_dir=data, **changes, **settings)
        rows.append([name, f"{counts[name] / 1e3:.0f}", *scores])
        for picture in (network / "eval").glob("*.png"):
            shutil.copy(picture, output / f"{network.name}_{picture.name}")
    head = ["", "parameters, thousand", "error of the noise", *(f"at time {t}" for t in TIMES), "peak of a step, MiB"]
    write(
        folder / "diffusion.md",
        "3D diffusion on the BraTS sample set",
        table([*head, "training (minutes)"], rows),
        "Mean squared error of the predicted noise for two unseen subjects, with the averaged weights of the best "
        "epoch: 1 is no prediction at all. One training each, on the same volumes, times and noise. Peak: the largest "
        "sum of living tensors in a step of the training, without parameters and data.",
    )


if __name__ == "__main__":
    main()
