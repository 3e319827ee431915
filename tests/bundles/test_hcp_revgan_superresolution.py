"""The HCP bundle: all its config files run, both directions, and it can be interrupted.

Everything runs at the smallest size, on sample data, from a directory that is not the bundle's.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel
import numpy as np
import pytest
import torch

from monai_invertible.data import hcp_datalist, write_nifti
from monai_invertible.metrics import TensorMetric
from monai_invertible.transforms import LoadDiffusionTensord
from tests.bundles.helper import ROOT, foreign_directory, last_line, run, workflow

pytest.importorskip("dipy", reason="pip install monai-invertible[data]")

BUNDLE = ROOT / "bundles" / "hcp_revgan_superresolution"
TINY: dict[str, Any] = {"network_def__channels": 4, "window_size": [32] * 3, "overlap": 0.0}
TRAINING: dict[str, Any] = {
    **TINY,
    "d_channels": 4,
    "roi_size": [16] * 3,
    "epochs": 2,
    "batch_size": 2,
    "patches_per_volume": 2,
    "folds": 4,
}
ITERATIONS = 3  # an epoch: 3 subjects, 2 patches each, in batches of 2
SCORES = ("rmse", "rmse_interior", "rmse_md", "rmse_fa", "positive_definite")


@pytest.fixture(scope="module")
def data(hcp_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample subjects' tensors as files, so that nothing is fitted again and again."""
    folder = tmp_path_factory.mktemp("tensors")
    for item in hcp_datalist(hcp_folder):
        tensor = LoadDiffusionTensord()(item)["y"]
        file = folder / item["subject"] / "dti_tensor.nii.gz"
        write_nifti(file, tensor.numpy().transpose(1, 2, 3, 0), tensor.affine.numpy())
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the bundle was trained for two epochs. Not to be written to."""
    with foreign_directory(tmp_path_factory.mktemp("trained")) as folder:
        flow = workflow(BUNDLE, "train", "quick", dataset_dir=data, **TRAINING)
        assert flow.check_properties() == []
        flow.run()
        flow.finalize()
        assert flow.trainer.state.epoch == 2 and flow.trainer.state.iteration == 2 * ITERATIONS
        assert flow.evaluator.state.metrics.keys() == set(SCORES)
        assert len(flow.parser.get_parsed_content("network_def").core) == 4
        return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """The current directory: a copy of ``trained``."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    with foreign_directory(tmp_path):
        yield tmp_path


def validation(data: Path) -> dict[str, Any]:
    (item,) = hcp_datalist(data, "validation", folds=4)
    return LoadDiffusionTensord()(item)


def volume(path: str) -> torch.Tensor:
    """A file of tensors as (6, x, y, z)."""
    return torch.from_numpy(np.asarray(nibabel.load(path).dataobj)).movedim(-1, 0)


def test_train_on_signals(hcp_folder: Path, tmp_path: Path) -> None:
    """As HCP distributes them; the statistics are those of the training set."""
    with foreign_directory(tmp_path):
        run(BUNDLE, "train", "quick", dataset_dir=hcp_folder, **{**TRAINING, "epochs": 1})
        assert sorted(os.listdir("models")) == ["model.pt", "resume.pt", "statistics.json"]
        items = [LoadDiffusionTensord()(item) for item in hcp_datalist(hcp_folder, "training", folds=4)]
        brains = torch.cat([item["y"].as_tensor()[:, item["mask"][0].as_tensor() > 0] for item in items], dim=1)
        statistics = json.loads(Path("models/statistics.json").read_text())
        assert statistics["mean"] == pytest.approx(brains.double().mean(1).tolist(), rel=1e-4, abs=1e-9)
        assert statistics["std"] == pytest.approx(brains.double().std(1).tolist(), rel=1e-3)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_evaluate(direction: str, here: Path, data: Path) -> None:
    """The scores are those of the files that are written."""
    shutil.rmtree("eval")
    flow = workflow(BUNDLE, "train", "quick", "evaluate", dataset_dir=data, direction=direction, **TRAINING)
    assert flow.check_properties() == []
    flow.run()
    flow.finalize()
    item = validation(data)
    truth = item["y" if direction == "forward" else "x"].as_tensor()
    with open("eval/scores.csv", encoding="utf-8") as file:
        row, mean = csv.DictReader(file)
    assert row["subject"] == item["subject"] and mean["subject"] == "mean" and tuple(row)[1:] == SCORES
    found = volume(f"eval/{item['subject']}_tensor.nii.gz")
    if direction == "forward":  # blocks of low resolution lie partly outside the brain, where nothing is written
        for name in ("rmse", "rmse_md", "rmse_fa", "positive_definite", "rmse_interior"):
            metric = TensorMetric(name.removesuffix("_interior"), interior=name.endswith("_interior"))
            metric(found, truth, subject="a")
            assert float(row[name]) == pytest.approx(metric.aggregate().item(), rel=1e-4)
    maps = [f"{item['subject']}{end}.nii.gz" for end in ("_MD", "_FA", "_truth_MD", "_truth_FA")]
    assert all(os.path.isfile(f"eval/{name}") for name in maps)
    np.testing.assert_allclose(nibabel.load(f"eval/{maps[0]}").affine, item["y"].affine.numpy(), atol=1e-4)
    assert matplotlib.image.imread(f"eval/{item['subject']}.png").shape[0] == 1100


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_interpolation(mode: str, data: Path, tmp_path: Path) -> None:
    """Without a training; the nearest neighbour is the input itself."""
    with foreign_directory(tmp_path):
        names = ("train", "quick", "evaluate", "interpolation")
        options = {key: value for key, value in TRAINING.items() if not key.startswith("network")}
        score = run(BUNDLE, *names, dataset_dir=data, network_def__mode=mode, **options).evaluator.state.metrics["rmse"]
        item = validation(data)
        metric = TensorMetric()
        metric(item["x"], item["y"], subject="a")
        nearest = metric.aggregate().item()
        assert score == pytest.approx(nearest, rel=1e-5) if mode == "nearest" else score != pytest.approx(nearest)
        assert os.path.isfile(f"eval/{item['subject']}_tensor.nii.gz")


def test_inference(here: Path, data: Path, tmp_path: Path) -> None:
    """A scan of low resolution becomes what the evaluation made of the same, simulated."""
    run(BUNDLE, "train", "quick", "evaluate", dataset_dir=data, **TRAINING)
    item = validation(data)
    name = item["subject"]
    coarse = item["x"].as_tensor()[:, ::2, ::2, ::2].movedim(0, -1).contiguous()
    affine = item["y"].affine.numpy() @ np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] += item["y"].affine.numpy()[:3, :3] @ np.full(3, 0.5)
    write_nifti(Path("low") / name / "dti_tensor.nii.gz", coarse.numpy(), affine)
    flow = workflow(BUNDLE, "inference", "quick", dataset_dir="low", section="all", **TINY)
    assert flow.check_properties() == []
    flow.run()
    flow.finalize()
    assert sorted(os.listdir("tensors_forward")) == [
        f"{name}{end}" for end in (".png", "_FA.nii.gz", "_MD.nii.gz", "_tensor.nii.gz")
    ]
    found = nibabel.load(f"tensors_forward/{name}_tensor.nii.gz")
    np.testing.assert_allclose(found.affine, item["y"].affine.numpy(), atol=1e-4)
    wanted = volume(f"eval/{name}_tensor.nii.gz")
    found = volume(f"tensors_forward/{name}_tensor.nii.gz")[..., :27, :32, :27]
    inside = wanted.abs().sum(0) > 0
    inside[-8:], inside[..., -8:] = False, False  # the last block was incomplete
    torch.testing.assert_close(found[:, inside], wanted[:, inside], rtol=1e-3, atol=1e-6)


def test_inference_to_low_resolution(here: Path, data: Path) -> None:
    options = {**TINY, "dataset_dir": data, "direction": "inverse", "section": "validation", "folds": 4}
    run(BUNDLE, "inference", "quick", **options)
    run(BUNDLE, "train", "quick", "evaluate", direction="inverse", dataset_dir=data, **TRAINING)
    name = validation(data)["subject"]
    assert torch.equal(*(volume(f"{place}/{name}_tensor.nii.gz") for place in ("tensors_inverse", "eval")))


@pytest.mark.parametrize(
    "names",
    [("no_adversary",), ("unpaired",), ("srcnn",), ("srcnn", "no_adversary"), ("paper_statistics",), ("persistent",)],
    ids="-".join,
)
def test_every_model_trains_evaluates_and_infers(names: tuple[str, ...], data: Path, tmp_path: Path) -> None:
    with foreign_directory(tmp_path):
        options = {**TRAINING, "epochs": 1, "patches_per_volume": 1, "dataset_dir": data}
        flow = workflow(BUNDLE, "train", "quick", *names, **options)
        assert flow.check_properties() == []
        flow.run()
        discriminators = [name for name in flow.trainer.state.output[0] if name.startswith("discriminator")]
        assert bool(discriminators) != ("no_adversary" in names)
        evaluated = run(BUNDLE, "train", "quick", *names, "evaluate", **options).evaluator.state.metrics
        assert evaluated == pytest.approx(flow.evaluator.state.metrics)
        if "persistent" in names:
            assert len(list(Path("cache").glob("*.pt"))) == 4
        if "paper_statistics" in names:
            assert json.loads(Path("models/statistics.json").read_text())["mean"][0] == 8.957e-4
        models = [name for name in names if name == "srcnn"]
        run(BUNDLE, "inference", "quick", *models, **{**TINY, "dataset_dir": data, "section": "validation", "folds": 4})
        assert len(os.listdir("tensors_forward")) == 4


def test_unpaired_patches_are_not_pairs(data: Path, here: Path) -> None:
    """x and y of a batch come from different places; paired ones from the same."""
    for names, paired in (((), True), (("unpaired",), False)):
        flow = workflow(BUNDLE, "train", "quick", *names, dataset_dir=data, **TRAINING)
        batch = next(iter(flow.parser.get_parsed_content("train#dataloader")))
        x, y = batch["x"].flatten(1), batch["y"].flatten(1)
        alike = [float(torch.corrcoef(torch.stack([a, b]).as_tensor())[0, 1]) for a, b in zip(x, y, strict=True)]
        assert (min(alike) > 0.6) == paired


def test_resume(here: Path, data: Path) -> None:
    """Stopped after the first epoch and resumed, a training gives the weights of one that was not interrupted."""
    wanted = torch.load("models/resume.pt", weights_only=True)
    shutil.rmtree("models")
    options = {"dataset_dir": data, **TRAINING}
    flow = workflow(BUNDLE, "train", "quick", **options)
    flow.trainer.add_event_handler(*_stop_after_first_epoch())
    flow.run()
    run(BUNDLE, "train", "quick", resume=True, **options)
    found = torch.load("models/resume.pt", weights_only=True)
    assert found.keys() == wanted.keys()
    for part in ("network", "discriminator_x", "discriminator_y"):
        for name, value in wanted[part].items():
            torch.testing.assert_close(found[part][name], value, msg=f"{part} {name}")
    assert found["best"]["_saved"][0][0] == pytest.approx(wanted["best"]["_saved"][0][0])


def _stop_after_first_epoch() -> tuple[Any, Any]:
    from ignite.engine import Events

    return Events.EPOCH_COMPLETED(once=1), lambda engine: engine.terminate()


def test_what_a_user_sees(here: Path, data: Path, capsys: pytest.CaptureFixture) -> None:
    """Of the usual mistakes, in the last line."""
    options = {"dataset_dir": data, **TRAINING}
    text = last_line(BUNDLE, "train", "quick", "evaluate", capsys=capsys, ckpt_dir="other", **options)
    assert text.startswith("error: FileNotFoundError: TensorStatistics: other/statistics.json does not exist")
    text = last_line(BUNDLE, "train", "quick", capsys=capsys, **{**options, "roi_size": [40] * 3})
    assert "PatchWeightd: an image must be at least as large as a patch, (40, 40, 40), got (27, 32, 27)" in text
    run(BUNDLE, "train", "quick", "evaluate", **options)
    text = last_line(BUNDLE, "train", "quick", "evaluate", capsys=capsys, **options)
    assert "TensorMapSaver:" in text and "must not exist" in text
