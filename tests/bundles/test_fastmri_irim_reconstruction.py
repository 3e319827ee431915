"""The fastMRI i-RIM bundle: all its config files run, and fail with a word of advice.

Everything runs at the smallest size, on sample data, from a directory that is not the bundle's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import matplotlib.image
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from monai_invertible.networks import InvertibleRIM
from tests.bundles.fastmri import BUNDLE, TINY, TRAINING
from tests.bundles.helper import (
    arguments,
    config_files,
    environment,
    foreign_directory,
    last_line,
    run,
    workflow,
)


@pytest.fixture
def network() -> InvertibleRIM:
    """The bundle's network at the size of these tests, as inference builds it."""
    return workflow(BUNDLE, "inference", "small", **TINY).network_def.eval()


# ---------------------------------------------------------------------------------------------------------------- runs


def test_train(fastmri_trained: Path, network: InvertibleRIM) -> None:
    assert sorted(path.name for path in (fastmri_trained / "models").iterdir()) == ["model.pt", "resume.pt"]
    weights = torch.load(fastmri_trained / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, Tensor) for value in weights.values())
    network.load_state_dict(weights)
    assert list((fastmri_trained / "eval").glob("events.out.tfevents.*"))


def test_evaluate(fastmri_here: Path, fastmri_folder: Path) -> None:
    shutil.rmtree("eval")
    names = ("train", "small", "quick", "evaluate")
    flow = workflow(BUNDLE, *names, dataset_dir=fastmri_folder, **TRAINING)
    assert flow.check_properties() == []
    flow.run()
    flow.finalize()
    scores = flow.evaluator.state.metrics
    with h5py.File("eval/file2000000.h5") as file, h5py.File(fastmri_folder / "singlecoil_val/file2000000.h5") as truth:
        image, reference = file["reconstruction"][()], truth["reconstruction_esc"][()]
    assert image.dtype == np.float32 and image.shape == reference.shape == (3, 32, 32)
    assert scores["nmse"] == pytest.approx(((image - reference) ** 2).sum() / (reference**2).sum(), rel=1e-4)
    picture = nibabel.load("eval/file2000000.nii.gz")
    assert picture.header.get_zooms() == (6.0, 6.0, 5.0) and np.array_equal(picture.affine, np.diag([6, 6, 5, 1]))
    np.testing.assert_array_equal(np.moveaxis(np.asarray(picture.dataobj), -1, 0), image)
    assert matplotlib.image.imread("eval/file2000000.png").shape[1] == 1200  # four panels
    header, row, mean = Path("eval/scores.csv").read_text().split()
    assert header == "filename,nmse,psnr,ssim" and row.startswith("file2000000.h5,") and mean.startswith("mean,")


def test_zero_filled_needs_no_checkpoint(tmp_path: Path, fastmri_folder: Path) -> None:
    with foreign_directory(tmp_path):
        flow = run(BUNDLE, "train", "quick", "evaluate", "zero_filled", dataset_dir=fastmri_folder)
        assert 10 < flow.evaluator.state.metrics["psnr"] < 40
        assert Path("eval/file2000000.h5").exists() and not Path("models").exists()


def test_inference(fastmri_here: Path, fastmri_folder: Path) -> None:
    """Files that are under-sampled keep their own mask; for the others it is drawn."""
    folder = fastmri_folder / "singlecoil_test"
    flow = workflow(BUNDLE, "inference", "small", dataset_dir=folder, **TINY)
    assert flow.check_properties() == []
    with h5py.File(folder / "file3000000.h5") as file:
        np.testing.assert_array_equal(flow.parser.get_parsed_content("dataset")[0]["mask"].flatten(), file["mask"][()])
    flow.run()
    flow.finalize()
    for name in ("file3000000", "file3000001"):
        with h5py.File(f"reconstructions/{name}.h5") as file:
            assert file["reconstruction"].shape == (3, 32, 32) and np.isfinite(file["reconstruction"]).all()
        assert nibabel.load(f"reconstructions/{name}.nii.gz").shape == (32, 32, 3)
        assert matplotlib.image.imread(f"reconstructions/{name}.png").shape[1] == 600  # two panels: no reference
    options = {"center_fractions": [0.5], "accelerations": [1], **TINY}
    flow = workflow(BUNDLE, "inference", "small", dataset_dir=fastmri_folder / "singlecoil_val", **options)
    assert flow.parser.get_parsed_content("dataset")[0]["mask"].all()  # acceleration 1


@pytest.mark.parametrize(
    ("names", "override"),
    [
        (("small",), {"network_def__steps": 1}),
        (("rim",), {"network_def__channels": 4}),
        (("unet",), {"network_def__channels": 2}),
        (("volume",), {**TINY, "network_def__downsample": [1, 2], "roi_size": [3, 32, 32], "min_slices": 3}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_model_trains_evaluates_and_infers(
    names: tuple[str, ...], override: dict[str, Any], tmp_path: Path, fastmri_folder: Path
) -> None:
    with foreign_directory(tmp_path):
        options = {
            "field_of_view": [32, 32],
            "roi_size": [32, 32],
            "epochs": 1,
            "dataset_dir": fastmri_folder,
            **override,
        }
        flow = workflow(BUNDLE, "train", *names, "quick", **options)
        assert flow.check_properties() == []
        flow.run()
        trained = flow.evaluator.state.metrics
        evaluated = run(BUNDLE, "train", *names, "quick", "evaluate", **options).evaluator.state.metrics
        assert evaluated == pytest.approx(trained) and trained.keys() == {"nmse", "psnr", "ssim"}
        inference = {key: value for key, value in override.items() if key.startswith("network_def")}
        run(BUNDLE, "inference", *names, dataset_dir=fastmri_folder / "singlecoil_test", **inference)
        with h5py.File("reconstructions/file3000001.h5") as file:
            assert file["reconstruction"].shape == (3, 32, 32)


def test_a_seed_repeats_a_run_and_epochs_differ(tmp_path: Path, fastmri_folder: Path) -> None:
    """The cache holds what was read, not crops and masks."""

    def epoch(flow: Any) -> Tensor:
        return torch.cat([item["kspace"] for item in flow.parser.get_parsed_content("train#dataloader")])

    with foreign_directory(tmp_path):
        options = {**TRAINING, "roi_size": [24, 24], "dataset_dir": fastmri_folder, "train__dataloader__shuffle": False}
        first = workflow(BUNDLE, "train", "small", "quick", **options)
        one, two = epoch(first), epoch(first)
        assert not torch.equal(one, two)
        assert torch.equal(one, epoch(workflow(BUNDLE, "train", "small", "quick", **options)))
        assert not torch.equal(one, epoch(workflow(BUNDLE, "train", "small", "quick", seed=1, **options)))


def test_default_is_the_model_of_the_paper() -> None:
    """8 steps of 1,430,528 parameters."""
    parser = ConfigParser()
    parser.read_config(config_files(BUNDLE, "train"))
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def")
    assert sum(p.numel() for p in network.parameters()) == 8 * 1_430_528


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def damaged(fastmri_folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the sample set that a test may damage; the current directory is another one."""
    shutil.copytree(fastmri_folder, tmp_path / "data")
    (tmp_path / "work").mkdir()
    with foreign_directory(tmp_path / "work"):
        yield tmp_path / "data"


def damage(data: Path, kind: str) -> Path:
    """Damage the first training volume, or the folder."""
    file = data / "singlecoil_train" / "file1000000.h5"
    if kind == "no folder":
        shutil.rmtree(file.parent)
    elif kind == "empty folder":
        for path in file.parent.iterdir():
            path.unlink()
    elif kind == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    else:
        with h5py.File(file, "r+") as volume:
            if kind == "no kspace":
                del volume["kspace"]
            elif kind == "NaN":
                volume["kspace"][0, 0, 0] = np.nan
            else:
                volume["mask"] = np.ones(5, dtype=np.float32)
    return file


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no folder", "FileNotFoundError: fastMRI folder {folder} does not exist. Give the folder"),
        ("empty folder", "ValueError: fastMRI folder {folder} holds no .h5 file. Give the folder"),
        ("truncated", "OSError: {file}: the HDF5 file cannot be read .* download it again"),
        ("no kspace", 'ValueError: {file}: a fastMRI volume must have "kspace", got .* Take the original file'),
        ("NaN", "ValueError: {file}: k-space must be finite, got NaN or Inf in slice 0. Take the original file"),
        ("other mask", "ValueError: {file}: the mask must have one value a column of k-space, got 5 for .* Take mask"),
    ],
)
def test_bad_data(damaged: Path, kind: str, message: str, capsys: pytest.CaptureFixture) -> None:
    file = damage(damaged, kind)
    line = last_line(BUNDLE, "train", "small", "quick", dataset_dir=damaged, capsys=capsys, **TRAINING)
    assert re.match("error: " + message.format(file=file, folder=file.parent), line)


def test_a_damaged_data_set_leaves_nothing_behind(damaged: Path, capsys: pytest.CaptureFixture) -> None:
    damage(damaged, "truncated")
    last_line(BUNDLE, "train", "small", "quick", dataset_dir=damaged, capsys=capsys, **TRAINING)
    assert not list(Path().rglob("*.pt"))


def test_no_checkpoint(tmp_path: Path, fastmri_folder: Path, capsys: pytest.CaptureFixture) -> None:
    with foreign_directory(tmp_path):
        missing = r"error: FileNotFoundError: CheckpointReader: \./models/{} must be a checkpoint, .* Train first, or"
        options = {**TRAINING, "dataset_dir": fastmri_folder, "capsys": capsys}
        line = last_line(BUNDLE, "train", "small", "quick", "evaluate", **options)
        assert re.match(missing.format("model.pt"), line)
        assert re.match(
            missing.format("resume.pt"), last_line(BUNDLE, "train", "small", "quick", resume=True, **options)
        )
        folder = fastmri_folder / "singlecoil_test"
        assert re.match(missing.format("model.pt"), last_line(BUNDLE, "inference", dataset_dir=folder, capsys=capsys))


def test_wrong_checkpoint(fastmri_here: Path, fastmri_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Of another network, damaged, or of a training that is over."""
    folder = fastmri_folder / "singlecoil_test"
    line = last_line(BUNDLE, "inference", dataset_dir=folder, capsys=capsys)
    assert re.match(
        r"error: ValueError: CheckpointReader: \./models/model.pt must be a whole checkpoint that fits", line
    )
    assert "Error(s) in loading state_dict for InvertibleRIM" in line and "configuration" in line and len(line) < 700
    options = {**TRAINING, "dataset_dir": fastmri_folder, "resume": True, "capsys": capsys}
    line = last_line(BUNDLE, "train", "small", "quick", **{**options, "epochs": 1})
    assert re.match(r"error: ValueError: CheckpointReader: \./models/resume.pt .* Epoch count \(2\)", line)
    os.truncate("models/resume.pt", 1000)
    line = last_line(BUNDLE, "train", "small", "quick", **options)
    assert re.match(r"error: ValueError: CheckpointReader: \./models/resume.pt must be a whole checkpoint", line)


def test_outputs_are_not_overwritten(fastmri_here: Path, fastmri_folder: Path, capsys: pytest.CaptureFixture) -> None:
    options = {**TINY, "dataset_dir": fastmri_folder / "singlecoil_test"}
    run(BUNDLE, "inference", "small", **options)
    before = Path("reconstructions/file3000000.h5").stat().st_mtime_ns
    line = last_line(BUNDLE, "inference", "small", capsys=capsys, **options)
    assert re.match(
        r"error: FileExistsError: ReconstructionSaver: reconstructions/file3000000.h5.* overwrite=True", line
    )
    assert Path("reconstructions/file3000000.h5").stat().st_mtime_ns == before
    run(BUNDLE, "inference", "small", overwrite=True, **options)
    assert Path("reconstructions/file3000000.h5").stat().st_mtime_ns > before


def test_command_line_error(tmp_path: Path) -> None:
    """What a user sees of an error in a terminal."""
    process = arguments("-m", "monai.bundle", "run", config_file=config_files(BUNDLE, "train"), dataset_dir="/nowhere")
    done = subprocess.run(process, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: FileNotFoundError: fastMRI folder /nowhere/singlecoil_train does not exist. Give the folder that holds "
        "the .h5 volumes."
    )
