"""Translation between pictures on the Maps sample set: RevGAN and CycleGAN of equal size, and what needs no training.

    python benchmarks/translation.py [--quick] [--epochs N] [--output FOLDER]

Every pair of generators is trained through the bundle maps_revgan_translation (its quick.json) and scored, in both
directions, after its last epoch, on pictures that were not trained on. Sample data show that it works; they are not
Maps, and no score here compares with a published one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import bundle_config, mean_scores, results, run_bundle, sample_data, table, training_options, write
from torch import Tensor

from monai_invertible.metrics import ImageQualityMetric

NAME = "maps_revgan_translation"
bundle = partial(run_bundle, NAME)
parsed = partial(bundle_config, NAME)
DIRECTIONS = {"forward": ("x", "y"), "inverse": ("y", "x")}
SCORES = {"psnr": ".2f", "ssim": ".3f", "mae": ".1f"}
RESNETS = {
    f"network_def#{way}_generator#{key}": value
    for way in DIRECTIONS
    for key, value in {"channels": 10, "depth": 3}.items()
}
# Name: override files, options. Both architectures have about 214 thousand parameters.
NETWORKS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "RevGAN": (["small"], {}),
    "CycleGAN": (["baseline"], {"d_channels": 16, **RESNETS}),
    "RevGAN, paired": (["paired", "small"], {}),
}
EXAMPLES = 3  # of each direction, in the figure


def floors(files: list[str], options: Mapping[str, Any]) -> Iterator[list[str]]:
    """Rows of what needs no training: every network must beat it."""
    parser = parsed(files, options)
    items = list(parser.get_parsed_content("validate#dataset"))
    parser.update({"val_section": parser["train_section"]})
    mean = {key: torch.stack([item[key] for item in parser.get_parsed_content("validate#dataset")]) for key in "xy"}
    others = {item["name"]: [other for other in items if other is not item] for item in items}
    guesses: dict[str, Callable[[Any, str, str], list[Tensor]]] = {
        "the picture itself": lambda item, a, b: [item[a]],
        "mean colour of the target": lambda item, a, b: [mean[b].mean((0, 2, 3))[:, None, None].expand_as(item[b])],
        "a real picture of another place": lambda item, a, b: [other[b] for other in others[item["name"]]],
    }
    for name, guess in guesses.items():
        row = []
        for a, b in DIRECTIONS.values():
            for score, spec in SCORES.items():
                metric = ImageQualityMetric(score)
                for item in items:
                    for number, picture in enumerate(guess(item, a, b)):
                        metric(picture, item[b], f"{item['name']}, {number}")
                row.append(format(float(metric.aggregate()), spec))
        yield [name, "-", *row, "-", "-", "-"]


def train(files: list[str], folder: Path, options: Mapping[str, Any]) -> list[str]:
    """Row of a trained pair: scores of both directions after the last epoch, the error of both cycles, minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    options = {**options, "ckpt_dir": folder / "models"}
    start = time.perf_counter()
    bundle(files, folder / "train.log", output_dir=folder / "training", **options)
    minutes = (time.perf_counter() - start) / 60
    options |= {"checkpoint": folder / "models" / "resume.pt", "overwrite": True}
    row, cycles = [], []
    for direction in DIRECTIONS:
        place = folder / direction
        log = folder / f"evaluate_{direction}.log"
        bundle([*files, "evaluate"], log, output_dir=place, direction=direction, **options)
        scores = mean_scores(place)
        row += [format(scores[name], spec) for name, spec in SCORES.items()]
        cycles.append(f"{scores['cycle_mae']:.1f}")
    network = parsed(files, options).get_parsed_content("network_def")
    parameters = sum(p.numel() for p in network.parameters())
    return [f"{parameters / 1e3:.0f}", *row, *cycles, f"{minutes:.1f}"]


def examples(trained: Mapping[str, tuple[list[str], Path, Mapping[str, Any]]], path: Path) -> None:
    """The figure: input, what each pair of generators makes of it, and of that again, and the truth."""
    from matplotlib.figure import Figure

    rows: list[dict[str, Tensor]] = []
    for name, (files, folder, options) in trained.items():
        parser = parsed(files, options)
        network = parser.get_parsed_content("network_def").eval()
        network.load_state_dict(torch.load(folder / "models" / "resume.pt", weights_only=True)["network"])
        items = list(parser.get_parsed_content("validate#dataset"))[:EXAMPLES]
        pairs = [(item, d, a, b) for d, (a, b) in DIRECTIONS.items() for item in items]
        rows = rows or [{"input": item[a], "truth": item[b]} for item, _, a, b in pairs]
        for row, (item, direction, a, _) in zip(rows, pairs, strict=True):
            with torch.no_grad():
                there = network(item[a].as_tensor()[None], direction=direction)
                back = network(there, direction="inverse" if direction == "forward" else "forward")
            row |= {name: there[0], f"{name}:\nand back": back[0]}
    titles = ["input", *(title for title in rows[0] if title not in ("input", "truth")), "truth"]
    figure = Figure(figsize=(1.3 * len(titles), 1.3 * len(rows) + 0.4), dpi=110, layout="constrained")
    grid: Any = figure.subplots(len(rows), len(titles), squeeze=False)
    for axes_row, row in zip(grid, rows, strict=True):
        for axes, title in zip(axes_row, titles, strict=True):
            axes.imshow(row[title].add(1).div(2).clamp(0, 1).movedim(0, -1).numpy())
            axes.set_axis_off()
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=8)
    figure.savefig(path)


def main() -> None:
    arguments = training_options(__doc__, "tiny data, one epoch: shows that it runs")
    folder = results(arguments.quick)
    output = (arguments.output or folder / "translation").resolve()
    data = output / "sample_data"
    options: dict[str, Any] = {"dataset_dir": data}
    size = {}
    if arguments.quick:
        size = {"train": 4, "val": 3, "size": 32}
        options |= {"epochs": 1, "roi_size": [24, 24], "load_size": [26, 26]}
    if arguments.epochs is not None:
        options["epochs"] = arguments.epochs
    sample_data("maps", data, **size)

    rows = list(floors(["train", "quick"], options))
    trained: dict[str, tuple[list[str], Path, Mapping[str, Any]]] = {}
    for name, (overrides, changes) in NETWORKS.items():
        trained[name] = (["train", *overrides, "quick"], output / name.replace(", ", "_"), {**options, **changes})
        rows.append([name, *train(*trained[name])])
    examples(trained, folder / "translation.png")
    head = [f"{way}: {score}" for way in ("X to Y", "Y to X") for score in ("PSNR (dB)", "SSIM", "MAE")]
    write(
        folder / "translation.md",
        "Satellite pictures (X) and relief maps (Y), sample data",
        table(["", "parameters (k)", *head, "cycle of X", "cycle of Y", "training (minutes)"], rows),
        "Means over pictures that were not trained on, against their true partners; MAE in grey levels, 0 to 255. "
        "Cycle: MAE of a picture that was translated there and back against itself. Parameters: of both generators "
        "together. RevGAN and CycleGAN were trained without pairs. One training each, with the same data, epochs, "
        "learning rate, discriminators' width and seed, scored after the last epoch: nothing was selected on the "
        "pictures that are scored.",
        "![input, translations and cycles of each network, truth](translation.png)",
    )


if __name__ == "__main__":
    main()
