"""The CIFAR-10 bundle: all its config files run, it can be interrupted, and says what is wrong with its data.

Everything runs at the smallest size, on sample data, from a directory that is not the bundle's.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image
from torch import Tensor

from monai_invertible.data import cifar10_classes, cifar10_datalist
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

BUNDLE = ROOT / "bundles" / "cifar10_hybrid_classification"
MODELS = ["resnet", "revnet", "irevnet", "layerwise"]
TINY: dict[str, Any] = {"width": 4, "batch_size": 20}
TRAINING: dict[str, Any] = {**TINY, "epochs": 2, "learning_rate": 0.02}
ITERATIONS = 5  # an epoch: 100 images in batches of 20


@pytest.fixture(scope="module")
def trained(cifar10_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the bundle was trained for two epochs. Not to be written to."""
    with foreign_directory(tmp_path_factory.mktemp("trained")) as folder:
        flow = workflow(BUNDLE, "train", "quick", dataset_dir=cifar10_folder, **TRAINING)
        assert flow.check_properties() == []
        flow.run()
        flow.finalize()
        assert flow.trainer.state.iteration == 2 * ITERATIONS
        assert 0 < flow.trainer.state.drift < 1e-3
        return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """The current directory: a copy of ``trained``."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    with foreign_directory(tmp_path):
        yield tmp_path


def rows(path: Path | str) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def probabilities(flow: Any, images: np.ndarray) -> Tensor:
    """Of uint8 images, by torch alone."""
    mean, std = (torch.tensor(flow.parser[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return flow.network_def.eval()((torch.from_numpy(images) - mean) / std).softmax(dim=1)


# ---------------------------------------------------------------------------------------------------------------- runs


def test_train(trained: Path) -> None:
    assert sorted(path.name for path in (trained / "models").iterdir()) == ["model.pt", "resume.pt"]
    network = workflow(BUNDLE, "inference", "quick", width=4).network_def
    network.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    assert "lr_scheduler" in torch.load(trained / "models" / "resume.pt", weights_only=True)


def test_learning_rate_is_that_of_the_recipe(cifar10_folder: Path) -> None:
    """Linearly up in a tenth of the training and down to 0; 5 of 50 epochs in the paper's."""
    flow = workflow(BUNDLE, "train", "quick", dataset_dir=cifar10_folder, **{**TRAINING, "epochs": 10})
    scheduler, optimizer = (flow.parser.get_parsed_content(key) for key in ("lr_scheduler", "optimizer"))
    found = []
    for _ in range(51):
        scheduler(None)
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx(np.interp(range(51), [0, 5, 50], [0, 0.02, 0]))


def test_evaluate(here: Path, cifar10_folder: Path) -> None:
    """Tables and accuracy are those of the network, computed by hand."""
    options = {**TRAINING, "dataset_dir": cifar10_folder, "output_dir": "out"}
    flow = workflow(BUNDLE, "train", "quick", "evaluate", **options)
    assert flow.check_properties() == []
    flow.run()
    written = [file for file in sorted(os.listdir("out")) if not file.startswith("events.out.tfevents.")]
    assert written == ["confusion.png", "mistakes.png", "predictions.csv", "scores.csv"]
    items, names = cifar10_datalist(cifar10_folder, "test"), np.array(cifar10_classes(cifar10_folder))
    expected, truth = probabilities(flow, np.stack([i["image"] for i in items])), [i["label"] for i in items]
    table = rows("out/predictions.csv")
    assert [row["name"] for row in table] == [item["name"] for item in items]
    assert [row["class"] for row in table] == names[expected.argmax(dim=1)].tolist()
    assert [row["truth"] for row in table] == names[truth].tolist()
    shares = [float(row["probability"]) for row in table]
    assert shares == pytest.approx(expected.amax(dim=1).tolist(), abs=1e-4)
    right = expected.argmax(dim=1).numpy() == truth
    scores = {row["class"]: row for row in rows("out/scores.csv")}
    assert float(scores["mean"]["accuracy"]) == pytest.approx(right.mean()) and scores["mean"]["images"] == "20"
    for label, name in enumerate(names):
        assert float(scores[name]["accuracy"]) == pytest.approx(right[np.array(truth) == label].mean())
    for file in ("confusion.png", "mistakes.png"):
        assert matplotlib.image.imread(f"out/{file}").std() > 0.05


def test_inference(here: Path, cifar10_folder: Path) -> None:
    """The test images, one batch, and a folder of pictures of any size."""
    flow = workflow(BUNDLE, "inference", "quick", dataset_dir=cifar10_folder, **TINY)
    assert flow.check_properties() == []
    flow.run()
    whole = rows("predictions/predictions.csv")
    assert len(whole) == 20 and whole[0].keys() == {"name", "class", "probability", "truth"}
    run(BUNDLE, "inference", "quick", dataset_dir=cifar10_folder, section="data_batch_2", output_dir="2", **TINY)
    assert len(rows("2/predictions.csv")) == 20
    Path("own").mkdir()
    items = cifar10_datalist(cifar10_folder, "test")[:3]
    for number, item in enumerate(items):
        Image.fromarray(item["image"].transpose(1, 2, 0)).save(f"own/{number}.png")
    Image.new("L", (50, 40), 99).save("own/grey.bmp")
    run(BUNDLE, "inference", "quick", dataset_dir=cifar10_folder, pictures="own", output_dir="out", **TINY)
    own = rows("out/predictions.csv")
    assert [row["name"] for row in own] == ["0.png", "1.png", "2.png", "grey.bmp"] and "truth" not in own[0]
    for one, other in zip(own[:3], whole[:3], strict=True):
        assert one["class"] == other["class"]
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=1e-4)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # names every check of a shape
@pytest.mark.parametrize("name", MODELS)
def test_every_training_can_be_evaluated_and_exported(name: str, cifar10_folder: Path, tmp_path: Path) -> None:
    options = {**TRAINING, "width": 8, "dataset_dir": cifar10_folder, "epochs": 1}
    with foreign_directory(tmp_path):
        flow = workflow(BUNDLE, "train", name, "quick", **options)
        assert flow.check_properties() == []
        flow.run()
        evaluated = run(BUNDLE, "train", name, "quick", "evaluate", **options).evaluator.state.metrics
        assert evaluated == pytest.approx(flow.evaluator.state.metrics)
        inferred = run(BUNDLE, "inference", name, "quick", dataset_dir=cifar10_folder, width=8)
        assert len(rows("predictions/predictions.csv")) == 20
        network, x = inferred.network_def.eval(), torch.randn(2, 3, 32, 32)
        script = torch.jit.script(network)
        torch.testing.assert_close(script(x), network(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:MicroBatchedSequential:UserWarning")  # of the drift
def test_a_drift_stops_the_training_unless_it_is_unguarded(tmp_path: Path, cifar10_folder: Path, capsys: Any) -> None:
    options = {**TRAINING, "dataset_dir": cifar10_folder, "network_def__negative_slope": 0.1}
    with foreign_directory(tmp_path):
        line = last_line(BUNDLE, "train", "layerwise", "quick", capsys=capsys, **options)
        assert re.match("error: RuntimeError: MicroBatchedSequential: .* with a relative error of .* above 0.1", line)
        flow = run(BUNDLE, "train", "layerwise", "quick", "unguarded", **{**options, "epochs": 1})
    assert flow.trainer.state.drift > 0.1


def test_the_last_batch_may_be_of_one_image_and_batches_be_held_out(cifar10_folder: Path, tmp_path: Path) -> None:
    sections = {"train_section": ["data_batch_1", "data_batch_2"], "val_section": "data_batch_5"}
    options = {**TRAINING, **sections, "batch_size": 13, "epochs": 1}
    with foreign_directory(tmp_path):
        flow = run(BUNDLE, "train", "quick", dataset_dir=cifar10_folder, **options)
    assert flow.trainer.state.iteration == 4
    assert flow.evaluator.state.metric_details["accuracy"].sum() == 20


def test_augmentation_is_drawn_anew_and_repeats_with_the_seed(cifar10_folder: Path, tmp_path: Path) -> None:
    """Crop, flip and a hole of the mean colour; without them the image itself."""

    def epoch(flow: Any) -> Tensor:
        return torch.cat([batch["image"] for batch in flow.parser.get_parsed_content("train#dataloader")])

    options = {**TRAINING, "dataset_dir": cifar10_folder, "train__dataloader__shuffle": False}
    with foreign_directory(tmp_path):
        first = workflow(BUNDLE, "train", "quick", **options)
        one, two = epoch(first), epoch(first)
        assert type(one) is Tensor and one.shape == (100, 3, 32, 32) and not torch.equal(one, two)
        assert torch.equal(one, epoch(workflow(BUNDLE, "train", "quick", **options)))
    assert all(64 <= holes <= 200 for holes in (one == 0).all(dim=1).sum(dim=(1, 2)))
    mean, std = (torch.tensor(first.parser[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    pixels = (one * std + mean).round().permute(0, 2, 3, 1)
    for item, image, hole in zip(cifar10_datalist(cifar10_folder), pixels, (one == 0).all(dim=1), strict=True):
        known = {tuple(color) for color in item["image"].reshape(3, -1).T.tolist()}
        assert {tuple(color) for color in image[~hole].int().tolist()} <= known


# -------------------------------------------------------------------------------------------------------- interruption


def test_killed_and_resumed_as_if_never_interrupted(tmp_path: Path, cifar10_folder: Path) -> None:
    """With its learning rate and momentum."""
    options = {**TRAINING, "dataset_dir": cifar10_folder, "epochs": 3}
    _, one, other = killed_and_resumed(tmp_path, BUNDLE, "train", "quick", **options)
    torch.testing.assert_close(one["optimizer"]["state"], other["optimizer"]["state"])
    assert one["lr_scheduler"] == other["lr_scheduler"]


def test_two_processes(tmp_path: Path, cifar10_folder: Path) -> None:
    """torchrun, gloo on a machine without GPU: one checkpoint, no trace of the wrapper in it, images scored once."""
    files = config_files(BUNDLE, "train", "quick", "multi_gpu_train")
    options = {**TRAINING, "dataset_dir": cifar10_folder, "epochs": 1, "batch_size": 10}
    output = command(*TORCHRUN, cwd=tmp_path, config_file=files, **options)
    assert output.count("Saved checkpoint at epoch: 1") == 1
    (best,) = re.findall(r"Key metric: accuracy best value: (\S+)", output)
    with foreign_directory(tmp_path):
        flow = run(BUNDLE, "train", "quick", "evaluate", **options)
        assert float(best) == pytest.approx(flow.evaluator.state.metrics["accuracy"], abs=1e-4)
        run(BUNDLE, "train", "quick", resume=True, **{**options, "epochs": 2, "batch_size": 20})


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("truncated", "OSError: .*data_batch_3: this pickle cannot be read .* fetch it again"),
        ("missing", "FileNotFoundError: cifar10_datalist: .* must hold the file data_batch_3, got batches.meta"),
        ("folder", "FileNotFoundError: .* does not exist. Give the folder of the data set"),
        ("section", "FileNotFoundError: cifar10_datalist: .* must hold the file val, got .* names of batches"),
    ],
)
def test_bad_data(tmp_path: Path, cifar10_folder: Path, damage: str, message: str, capsys: Any) -> None:
    (tmp_path / "work").mkdir()
    folder = Path(shutil.copytree(cifar10_folder, tmp_path / "data"))
    file = folder / "cifar-10-batches-py" / "data_batch_3"
    options = {**TRAINING, "dataset_dir": folder}
    if damage == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "missing":
        file.unlink()
    elif damage == "folder":
        shutil.rmtree(folder)
    else:
        options["train_section"] = "val"
    with foreign_directory(tmp_path / "work"):
        line = last_line(BUNDLE, "train", "quick", capsys=capsys, **options)
    assert re.match(f"error: {message}", line), line


def test_checkpoint_of_another_network(here: Path, cifar10_folder: Path, capsys: Any) -> None:
    options = {**TRAINING, "dataset_dir": cifar10_folder, "capsys": capsys}
    line = last_line(BUNDLE, "train", "resnet", "quick", "evaluate", **options)
    assert re.match(r"error: ValueError: CheckpointReader: \./models/model.pt must be a whole checkpoint", line), line


def test_outputs_are_not_overwritten(here: Path, cifar10_folder: Path, capsys: Any) -> None:
    options = {**TINY, "dataset_dir": cifar10_folder}
    run(BUNDLE, "inference", "quick", **options)
    line = last_line(BUNDLE, "inference", "quick", capsys=capsys, **options)
    assert re.match("error: FileExistsError: .* must not exist.* overwrite=True", line), line
    run(BUNDLE, "inference", "quick", overwrite=True, **options)


# -------------------------------------------------------------------------------------------------------- config files


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (None, 3_701_984),
        ("resnet", 3_131_488),
        ("revnet", 3_183_768),
        ("irevnet", 42_801_632),
        ("layerwise", 7_400_032),
    ],
)
def test_networks_are_those_of_the_paper(name: str | None, parameters: int) -> None:
    """As many parameters as in its table 1 (and in its equation 34)."""
    for first in ("train", "inference"):
        parser = ConfigParser()
        parser.read_config(config_files(BUNDLE, first, *([name] if name else [])))
        with torch.device("meta"):
            assert sum(p.numel() for p in parser.get_parsed_content("network_def").parameters()) == parameters
