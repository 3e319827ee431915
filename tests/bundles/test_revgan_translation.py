"""The two translation bundles: all their config files run, in both directions, and can be interrupted.

Everything runs at the smallest size, on sample data, from a directory that is not the bundle's.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from torch import nn

from monai_invertible.data import CITYSCAPES_COLORS
from tests.bundles.helper import (
    ROOT,
    TORCHRUN,
    command,
    config_files,
    foreign_directory,
    killed_and_resumed,
    last_line,
    run,
    workflow,
)

NETWORK: dict[str, Any] = {"network_def__channels": 4, "network_def__depth": 1}
TINY: dict[str, Any] = {"roi_size": [24, 24]}
TRAINING: dict[str, Any] = {**TINY, "load_size": [26, 26], "epochs": 2, "d_channels": 2}
ITERATIONS = 4  # an epoch: 4 pictures, one by one
LABELS = {"pixel_accuracy", "class_accuracy", "mean_iou"}


@pytest.fixture(scope="module", params=["maps", "cityscapes"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def bundle(name: str) -> Path:
    return ROOT / "bundles" / f"{name}_revgan_translation"


@pytest.fixture(scope="module")
def data(name: str, request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(f"{name}_folder")


@pytest.fixture(scope="module")
def trained(bundle: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the bundle was trained for two epochs. Not to be written to."""
    with foreign_directory(tmp_path_factory.mktemp("trained")) as folder:
        flow = workflow(bundle, "train", "small", "quick", dataset_dir=data, **TRAINING, **NETWORK)
        assert flow.check_properties() == []
        flow.run()
        flow.finalize()
        assert flow.trainer.state.iteration == 2 * ITERATIONS
        return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """The current directory: a copy of ``trained``."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    with foreign_directory(tmp_path):
        yield tmp_path


def levels(path: Path | str) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=float)


def scores(folder: str) -> dict[str, dict[str, float]]:
    with open(f"{folder}/scores.csv", encoding="utf-8") as file:
        return {row.pop("name"): {k: float(v) for k, v in row.items()} for row in csv.DictReader(file)}


# ---------------------------------------------------------------------------------------------------------------- runs


def test_train(trained: Path, bundle: Path) -> None:
    assert sorted(path.name for path in (trained / "models").iterdir()) == ["model.pt", "resume.pt"]
    network = workflow(bundle, "inference", "small", **NETWORK).network_def
    network.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    checkpoint = torch.load(trained / "models" / "resume.pt", weights_only=True)
    assert {key: len(images) for key, images in checkpoint["pool"].items()} == {"x": 8, "y": 8}
    assert {"discriminator_x", "discriminator_y", "d_optimizer", "d_lr_scheduler"} <= checkpoint.keys()


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_evaluate(here: Path, bundle: Path, data: Path, name: str, direction: str) -> None:
    """The absolute error is that of the files that are written, by numpy alone."""
    options = {**TRAINING, **NETWORK, "dataset_dir": data, "direction": direction, "output_dir": "out"}
    flow = workflow(bundle, "train", "small", "quick", "evaluate", **options)
    assert flow.check_properties() == []
    flow.run()
    written = [file for file in sorted(os.listdir("out")) if not file.startswith("events.out.tfevents.")]
    assert written == ["1.png", "2.png", "scores.csv", "sheet.png"]
    table = scores("out")
    mean = table.pop("mean")
    labels = LABELS if name == "cityscapes" and direction == "forward" else set()
    assert mean.keys() == {"mae", "psnr", "ssim", "cycle_mae"} | labels and table.keys() == {"1", "2"}
    dataset = flow.parser.get_parsed_content("validate#dataset")
    for item in dataset:
        target = ((item["y" if direction == "forward" else "x"].as_tensor() + 1) * 127.5).round()
        error = np.abs(levels(f"out/{item['name']}.png") - target.permute(1, 2, 0).numpy())
        assert table[item["name"]]["mae"] == pytest.approx(error.mean(), rel=1e-4)
    assert mean["mae"] == pytest.approx(np.mean([row["mae"] for row in table.values()]), rel=1e-4)
    assert all(0 <= mean[key] <= 1 for key in labels)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_inference(here: Path, bundle: Path, data: Path, direction: str) -> None:
    """From one checkpoint, both ways: a folder of a data set, and one of pictures of one's own."""
    options = {**TINY, **NETWORK, "direction": direction}
    flow = workflow(bundle, "inference", "small", dataset_dir=data, **options)
    assert flow.check_properties() == []
    flow.run()
    folder = Path(f"translations_{direction}")
    assert sorted(os.listdir(folder)) == ["1.png", "2.png", "sheet.png"]
    assert levels(folder / "1.png").shape == (24, 24, 3)
    own = data / ("valA" if direction == "forward" else "valB")
    run(bundle, "inference", "small", dataset_dir=own, section="", output_dir="own", **options)
    assert np.array_equal(levels(folder / "2.png"), levels("own/2.png"))
    network, item = flow.network_def.eval(), flow.parser.get_parsed_content("dataset")[0]
    with torch.no_grad():
        (key,) = {"x", "y"} & item.keys()
        found = network(item[key].as_tensor()[None], direction=direction)[0]
    expected = ((found + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert np.abs(levels(folder / "1.png") - expected).max() <= 1


@pytest.mark.parametrize("names", [("paired",), ("baseline",), ("paired", "baseline"), ("no_pairs",)], ids="-".join)
def test_every_training_can_be_evaluated(names: tuple[str, ...], bundle: Path, data: Path, tmp_path: Path) -> None:
    part = "network_def__{}_generator__{}"
    sizes = {"channels": 4, "depth": 1}
    small = {part.format(d, k): v for d in ("forward", "inverse") for k, v in sizes.items()}
    options = {**TRAINING, **(small if "baseline" in names else NETWORK), "dataset_dir": data, "epochs": 1}
    models = [name for name in names if name == "baseline"]
    first, last = [n for n in names if n != "no_pairs"], [n for n in names if n == "no_pairs"]
    with foreign_directory(tmp_path):
        flow = workflow(bundle, "train", *first, "quick", *last, **options)
        assert flow.check_properties() == []
        flow.run()
        terms = {key for key in flow.trainer.state.output[0] if str(key).endswith("_loss")}
        assert ("l1_x_loss" in terms) == ("paired" in names) and ("cycle_x_loss" in terms) == ("paired" not in names)
        evaluated = run(bundle, "train", *first, "quick", "evaluate", *last, **options).evaluator.state.metrics
        assert evaluated == pytest.approx(flow.evaluator.state.metrics, nan_ok=True)
        assert ("psnr" in evaluated) == ("no_pairs" not in names)
        network = {key: value for key, value in options.items() if key.startswith("network_def")}
        run(bundle, "inference", *models, dataset_dir=data, **TINY, **network)


def test_partners_and_crops_are_drawn_anew_and_repeat_with_the_seed(bundle: Path, data: Path) -> None:
    def epoch(flow: Any) -> torch.Tensor:
        batches = flow.parser.get_parsed_content("train#dataloader")
        return torch.cat([torch.cat([b["x"].as_tensor(), b["y"].as_tensor()]) for b in batches])

    options = {**TRAINING, "dataset_dir": data, "train__dataloader__shuffle": False}
    first = workflow(bundle, "train", "small", "quick", **options)
    one, two = epoch(first), epoch(first)
    assert one.shape == (8, 3, 24, 24) and not torch.equal(one, two) and one.min() >= -1 and one.max() <= 1
    assert torch.equal(one, epoch(workflow(bundle, "train", "small", "quick", **options)))


class Nearest(nn.Module):
    """A "segmentation" that takes a photo for a label picture."""

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        colors = torch.tensor(list(CITYSCAPES_COLORS.values())).float()
        return -torch.cdist(((photo[0] + 1) * 127.5).flatten(1).T, colors).T.reshape(1, 19, *photo.shape[2:])


@pytest.mark.filterwarnings("ignore:`torch.jit.(trace|trace_method|load|save)` is deprecated")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # colours and shapes become constants
def test_fcn_score(here: Path, bundle: Path, data: Path, name: str) -> None:
    if name == "maps":
        pytest.skip("has no labels")
    options = {**TRAINING, **NETWORK, "dataset_dir": data, "direction": "inverse", "output_dir": "out"}
    torch.jit.save(torch.jit.trace(Nearest(), torch.zeros(1, 3, 24, 24)), "segmentation.ts")
    options["segmentation"] = "$torch.jit.load('segmentation.ts')"
    flow = run(bundle, "train", "small", "quick", "evaluate", **options)
    assert flow.evaluator.state.metrics.keys() >= LABELS and scores("out")["mean"].keys() >= LABELS


# -------------------------------------------------------------------------------------------------------- interruption


def test_killed_and_resumed_as_if_never_interrupted(tmp_path: Path, bundle: Path, data: Path, name: str) -> None:
    """With both optimisers and the pool, which is full in the last epoch."""
    if name == "cityscapes":
        pytest.skip("the same file as that of Maps in all that matters (test_bundles_are_alike)")
    options = {**TRAINING, **NETWORK, "dataset_dir": data, "epochs": 3, "pool__size": 6}
    _, one, other = killed_and_resumed(tmp_path, bundle, "train", "small", "quick", rel=1e-4, **options)
    for key in ("discriminator_x", "discriminator_y", "pool"):
        torch.testing.assert_close(one[key], other[key])


def test_two_processes(bundle: Path, data: Path, name: str, tmp_path: Path) -> None:
    """torchrun, gloo on a machine without GPU: one checkpoint, no trace of the wrappers in it; one process goes on from
    it with batches as large as those of both."""
    if name == "cityscapes":
        pytest.skip("the same file as that of Maps (test_bundles_are_alike)")
    files = config_files(bundle, "train", "small", "quick", "multi_gpu_train")
    options = {**TRAINING, **NETWORK, "dataset_dir": data, "epochs": 1}
    output = command(*TORCHRUN, cwd=tmp_path, config_file=files, **options)
    assert output.count("Saved checkpoint at epoch: 1") == 1
    (best,) = re.findall(r"Key metric: psnr best value: (\S+)", output)
    with foreign_directory(tmp_path):
        flow = run(bundle, "train", "small", "quick", "evaluate", **options)
        assert float(best) == pytest.approx(flow.evaluator.state.metrics["psnr"], abs=1e-4)
        run(bundle, "train", "small", "quick", resume=True, **{**options, "epochs": 2, "batch_size": 2})


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", "OSError: .*2.jpg: this picture cannot be read .* fetch it again"),
        ("odd", "ValueError: .*2.jpg: two pictures side by side must have an even width, got 63 columns"),
        ("section", "FileNotFoundError: paired_images_datalist: .* must hold the folder val .*, got train"),
        ("folder", "FileNotFoundError: .* does not exist. Give the folder of the data set"),
    ],
)
def test_bad_data(
    tmp_path: Path, bundle: Path, data: Path, damage: str, message: str, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "work").mkdir()
    folder = tmp_path / "data"
    for section in ("train", "val"):
        shutil.copytree(data / section, folder / section)
    file = folder / "train" / "2.jpg"
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "odd":
        Image.open(file).crop((0, 0, 63, 32)).save(file)
    elif damage == "section":
        shutil.rmtree(folder / "val")
    else:
        shutil.rmtree(folder)
    with foreign_directory(tmp_path / "work"):
        options = {**TRAINING, **NETWORK, "dataset_dir": folder}
        line = last_line(bundle, "train", "paired", "small", "quick", capsys=capsys, **options)
    assert re.match(f"error: {message}", line), line


def test_outputs_are_not_overwritten(here: Path, bundle: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    options = {**TINY, **NETWORK, "dataset_dir": data}
    run(bundle, "inference", "small", **options)
    line = last_line(bundle, "inference", "small", capsys=capsys, **options)
    assert re.match("error: FileExistsError: .* must not exist.* overwrite=True", line), line
    run(bundle, "inference", "small", overwrite=True, **options)


# -------------------------------------------------------------------------------------------------------- config files


def test_default_is_the_model_of_the_paper(bundle: Path, name: str) -> None:
    """Of the paper's size, with a baseline of as many parameters."""

    def parameters(*names: str) -> int:
        parser = ConfigParser()
        parser.read_config(config_files(bundle, *names))
        with torch.device("meta"):
            return sum(p.numel() for p in parser.get_parsed_content("network_def").parameters())

    wanted = {"maps": (5_610_230, 5_701_126), "cityscapes": (3_875_206, 3_930_118)}[name]
    assert (parameters("train"), parameters("train", "baseline")) == wanted
    assert (parameters("inference"), parameters("inference", "baseline")) == wanted


def test_bundles_are_alike() -> None:
    """What need not differ does not."""
    folders = [ROOT / "bundles" / f"{name}_revgan_translation" for name in ("maps", "cityscapes")]
    names = [sorted(path.name for path in folder.glob("configs/*")) for folder in folders]
    assert names[0] == names[1]
    for file in set(names[0]) - {"train.json", "inference.json", "baseline.json", "metadata.json"}:
        assert len({(folder / "configs" / file).read_text(encoding="utf-8") for folder in folders}) == 1, file
    one, other = (json.loads((f / "configs/train.json").read_text(encoding="utf-8")) for f in folders)
    assert one.keys() ^ other.keys() == {"colors", "void_colors", "segmentation"}
    other["validate"]["additional_metrics"] = {
        key: value for key, value in other["validate"]["additional_metrics"].items() if key not in LABELS
    }
    different = {key for key in one if one[key] != other[key]}
    assert different == {"load_size", "roi_size", "scores", "network_def"}
