"""Can the inverse of a diffusion model tell a real image from a generated one?

The paper of the invertible diffusion U-Net (arXiv 2504.10883) leaves it open. Here a network without bookends, whose
input comes back from its output, is given unseen volumes of the BraTS sample set and as many samples of its own, at
several times and with the same noise. Statistics of one volume:

- prediction: how far the prediction (the velocity, a mixture of noise and image) is from the truth. No inverse needed.
- inversion: put the truth in the place of the prediction, run the core backwards, and compare with the noisy volume
  that went in: how far the input had to move for the prediction to be right.
- round trip: run the core backwards from its own output: rounding errors alone.
- roughness: the mean square of the differences of neighbouring voxels. It needs no network.

The area under the ROC curve says how well a statistic separates the two: 1 or 0 entirely, 0.5 not at all.

    python benchmarks/real_or_generated.py [--quick] [--trained FOLDER] [--volumes N]

``FOLDER`` is the network "IDM without bookends" of ``benchmarks/diffusion.py``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from common import bundle_config, figure, results, sample_data, table, write
from monai.bundle import ConfigParser
from monai.inferers import DiffusionInferer
from scipy.stats import mannwhitneyu
from torch import Tensor, nn

from monai_invertible.data import brats_datalist

TIMES = (20, 100, 300, 500, 700, 900)
STATISTICS = ("prediction", "inversion", "round trip", "roughness")


def load_bundle(checkpoint: Path | None) -> ConfigParser:
    """The network of quick.json without bookends, trained."""
    config = bundle_config("brats_idm_generation", ["train", "quick"], {"network_def#bookends": False})
    if checkpoint is not None:
        weights = torch.load(checkpoint, map_location="cpu", weights_only=True)
        config.get_parsed_content("network").load_state_dict(weights.get("network", weights))
    return config


def real_volumes(config: ConfigParser, folder: Path, count: int, seed: int) -> Tensor:
    """Sample subjects of another seed than those trained on, prepared as in the bundle."""
    sample_data("brats", folder, subjects=count, size=80, seed=seed)
    prepare = config.get_parsed_content("validate::preprocessing")
    subjects = brats_datalist(folder, labels=False, modalities=["t1"])[:count]
    return torch.stack([prepare(subject)["image"].as_tensor() for subject in subjects])


@torch.no_grad()
def statistics(network: Any, scheduler: Any, images: Tensor, noise: Tensor, time: int) -> Tensor:
    """Every statistic of every volume, ``(B, statistics)``."""
    times = torch.full((len(images),), time)
    noisy = scheduler.add_noise(images, noise, times)
    embedding = network.embed(noisy, times)
    state = network.ends.lift(noisy)
    output = network.core(*state, embedding=embedding)
    predicted = network.ends.project(output)
    corrected = torch.cat(output, dim=1)
    truth = scheduler.get_velocity(images, noise, times) if scheduler.prediction_type == "v_prediction" else noise
    true = torch.cat(network.ends.lift(truth), dim=1)
    taken = network.ends.taken
    corrected = torch.cat([true[:, :taken], corrected[:, taken:]], dim=1).split([s.shape[1] for s in state], dim=1)

    def back(final: Any) -> Tensor:
        return network.ends.project(network.core.inverse(*final, embedding=embedding))

    differences = sum(images.diff(dim=dim).square().flatten(1).mean(1) for dim in (2, 3, 4))
    return torch.stack(
        [
            (predicted - truth).square().flatten(1).mean(1),
            (back(corrected) - noisy).square().flatten(1).mean(1),
            (back(output) - noisy).square().flatten(1).mean(1),
            differences,
        ],
        dim=1,
    )


def area(real: Tensor, generated: Tensor) -> float:
    """Under the ROC curve: the probability that a generated volume has the larger value."""
    return mannwhitneyu(generated.numpy(), real.numpy()).statistic / (len(real) * len(generated))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="an untrained network and two volumes, to see that it runs"
    )
    trained = Path(__file__).parent / "results" / "diffusion"
    parser.add_argument("--trained", type=Path, default=trained, help="output folder of benchmarks/diffusion.py")
    parser.add_argument("--volumes", type=int, default=24, help="real ones, and as many generated")
    options = parser.parse_args()
    folder = results(options.quick)
    count = 2 if options.quick else options.volumes
    times = TIMES[:2] if options.quick else TIMES
    config = load_bundle(None if options.quick else options.trained / "IDM_without_bookends" / "models" / "model.pt")
    network: nn.Module = config.get_parsed_content("network").eval()
    ddpm, ddim = (config.get_parsed_content(f"samplers::{name}") for name in ("ddpm", "ddim"))
    real = real_volumes(config, folder / "real_or_generated", count, seed=1)
    torch.manual_seed(0)
    ddim.set_timesteps(2 if options.quick else 50)
    generated = DiffusionInferer(ddim).sample(torch.randn_like(real), network, verbose=False).clamp(-1, 1)
    noise = torch.randn_like(real)

    found = {t: [statistics(network, ddpm, images, noise, t) for images in (real, generated)] for t in times}
    rows = []
    for i, name in enumerate(STATISTICS):
        areas = [f"{area(found[t][0][:, i], found[t][1][:, i]):.2f}" for t in times]
        rows.append([name, *areas])
    values = [
        [name, kind, *(f"{found[t][k][:, i].median():.2g}" for t in times)]
        for i, name in enumerate(STATISTICS)
        for k, kind in enumerate(("real", "generated"))
    ]
    plot(folder / "real_or_generated.png", real, generated, found)
    write(
        folder / "real_or_generated.md",
        "Can the inverse of a diffusion model tell real from generated?",
        f"{count} unseen volumes of the BraTS sample set against {count} samples of the network, 32³ voxels.",
        "## Area under the ROC curve, by time\n\n" + table(["", *map(str, times)], rows),
        "## Medians\n\n" + table(["", "volumes", *map(str, times)], values),
    )


def plot(path: Path, real: Tensor, generated: Tensor, found: dict[int, list[Tensor]]) -> None:
    """Examples, and two statistics at a middle time."""
    drawing, axes = figure(3)
    for axis, images, title in ((axes[0], real, "real"), (axes[1], generated, "generated")):
        slices = [image[0, :, :, image.shape[3] // 2].T.flip(0) for image in images[:2]]
        axis.imshow(torch.cat(slices), cmap="gray", vmin=-1, vmax=1)
        axis.set_title(title)
        axis.axis("off")
    time = list(found)[len(found) // 2]
    for k, (label, color) in enumerate((("real", "#777777"), ("generated", "#00796b"))):
        axes[2].scatter(found[time][k][:, 0], found[time][k][:, 1], label=label, color=color, s=14)
    axes[2].set(xlabel="prediction", ylabel="inversion", xscale="log", yscale="log", title=f"time {time}")
    axes[2].legend(frameon=False)
    drawing.savefig(path)


if __name__ == "__main__":
    main()
