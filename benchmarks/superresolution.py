"""Super-resolution of diffusion tensors on the HCP sample set: interpolation, and the RevGAN's core at several depths.

    python benchmarks/superresolution.py [--quick] [--epochs N] [--output FOLDER]

Every network is trained through the bundle hcp_revgan_superresolution (its quick.json) on the same patches, with and
without adversary, and scored on subjects that were not trained on. Sample data show that it works; they are not HCP,
and no score here compares with a published one.
"""

from __future__ import annotations

import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

from common import mean_scores, results, run_bundle, sample_data, table, training_options, write

bundle = partial(run_bundle, "hcp_revgan_superresolution")
INTERPOLATION = ("nearest", "linear", "cubic")
ADVERSARY: dict[str, list[str]] = {"absolute error alone": ["no_adversary"], "paired, with adversary": []}
DEPTHS = (0, 2, 4, 8)
SCORES = {"rmse": ".2f", "rmse_interior": ".2f", "rmse_md": ".2f", "rmse_fa": ".3f", "positive_definite": ".4g"}


def evaluate(files: list[str], folder: Path, **options: Any) -> list[str]:
    """The means over the unseen subjects."""
    folder.mkdir(parents=True, exist_ok=True)
    bundle(files, folder / "evaluate.log", overwrite=True, output_dir=folder / "eval", **options)
    scores = mean_scores(folder / "eval")
    return [format(scores[name], spec) for name, spec in SCORES.items()]


def train(files: list[str], folder: Path, **options: Any) -> list[str]:
    """The scores, and how long it took in minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    options["ckpt_dir"] = folder / "models"
    start = time.perf_counter()
    bundle(files, folder / "train.log", output_dir=folder / "training", **options)
    minutes = (time.perf_counter() - start) / 60
    return [*evaluate([*files, "evaluate"], folder, **options), f"{minutes:.1f}"]


def main() -> None:
    options = training_options(__doc__, "two networks, tiny data, one epoch: shows that it runs")
    folder = results(options.quick)
    output = (options.output or folder / "superresolution").resolve()
    data = output / "sample_data"
    depths, changes = DEPTHS, {} if options.epochs is None else {"epochs": options.epochs}
    size = {}
    if options.quick:
        depths, size = DEPTHS[:2], {"subjects": 4, "size": 24}
        changes = {"epochs": 1, "patches_per_volume": 1, "roi_size": [16, 16, 16], **changes}
    sample_data("hcp", data, **size)

    rows = []
    for mode in INTERPOLATION:
        settings = {"dataset_dir": data, "network_def#mode": mode}
        scores = evaluate(["train", "quick", "evaluate", "interpolation"], output / mode, **settings)
        rows.append([f"{mode} interpolation", *scores, "-"])
    for losses, files in ADVERSARY.items():
        for depth in depths:
            name = f"{losses}, {depth} layers"
            network = output / name.replace(", ", "_").replace(" ", "_")
            settings = {"dataset_dir": data, "network_def#depth": depth, **changes}
            scores = train(["train", "quick", *files], network, **settings)
            rows.append([name, *scores])
            for picture in (network / "eval").glob("*.png"):
                shutil.copy(picture, output / f"{network.name}_{picture.name}")
    write(
        folder / "superresolution.md",
        "Diffusion tensors at twice the resolution, sample data",
        table(["", "RMSE", "interior", "MD", "FA", "positive definite", "training (minutes)"], rows),
        "Subjects that were not trained on; RMSE of the tensor's components and of the mean diffusivity (MD) in 1e-5 "
        "mm²/s, over the brain and over its interior. One training each, on the same patches, chosen by the best epoch "
        "on the same subjects. Without layers each direction is a network of its own: the 3D SRCNN.",
    )


if __name__ == "__main__":
    main()
