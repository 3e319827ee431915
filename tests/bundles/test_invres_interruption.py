"""The segmentation bundles are killed, resumed, run by several processes, and given what they cannot use."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from tests.bundles.helper import TORCHRUN, command, config_files, foreign_directory, killed_and_resumed, last_line, run
from tests.bundles.invres import Invres


def test_killed_and_resumed_as_if_never_interrupted(tmp_path: Path, invres: Invres) -> None:
    options = {**invres.training, "epochs": 3}
    first, *_ = killed_and_resumed(tmp_path, invres.bundle, "train", "quick", **options)
    assert first["trainer"]["iteration"] == invres.iterations


def test_two_processes(invres: Invres, tmp_path: Path) -> None:
    """torchrun, gloo on a machine without GPU: one checkpoint, no trace of the wrapper in it."""
    if invres.name == "brats":
        pytest.skip("the same file as iSeg's (test_bundles_are_alike), which leaves one subject out for two processes")
    files = config_files(invres.bundle, "train", "quick", "multi_gpu_train")
    options = {**invres.training, "epochs": 1, "batch_size": 1}
    output = command(*TORCHRUN, cwd=tmp_path, config_file=files, **options)
    assert output.count("Saved checkpoint at epoch: 1") == 1
    (best,) = re.findall(r"Key metric: dice best value: (\S+)", output)
    with foreign_directory(tmp_path):
        flow = run(invres.bundle, "train", "quick", "evaluate", **invres.training)
        assert float(best) == pytest.approx(flow.evaluator.state.metrics["dice"], abs=1e-4)


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.fixture
def damaged(invres: Invres, tmp_path: Path) -> Iterator[Path]:
    """A copy of the sample set that a test may damage; the current directory is another one."""
    shutil.copytree(invres.data, tmp_path / "data")
    (tmp_path / "work").mkdir()
    with foreign_directory(tmp_path / "work"):
        yield tmp_path / "data"


def rewrite(path: Path, change: Any) -> None:
    image = nibabel.load(path)
    array, affine = change(np.asarray(image.dataobj).astype(np.float32), image.affine.copy())
    nibabel.save(
        (nibabel.Nifti1Image if path.name.endswith(".nii.gz") else nibabel.Spm2AnalyzeImage)(array, affine), path
    )


def set_first(value: float) -> Any:
    def change(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        array[(slice(1),) * array.ndim] = value
        return array, affine

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", r"FileNotFoundError: \w+_datalist: subject {subject} has no .* Complete"),
        ("truncated", "OSError: .*: this image of subject {subject} cannot be read .* fetch it again"),
        ("shape", "ValueError: .*: all images of a subject must have one shape, .* Resample"),
        ("label", r"ValueError: .*: labels must be among \[0, .*\], got .*77.* label_values"),
        ("NaN", "ValueError: .*: voxels must be finite, got 1 .* {subject}"),
        ("no folder", r"FileNotFoundError: \w+_datalist: folder .* does not exist. Give the folder"),
        ("folds", r"ValueError: \w+_datalist: folds must be 2 to the number of subjects, 4, got 9"),
    ],
)
def test_bad_data(damaged: Path, invres: Invres, damage: str, message: str, capsys: pytest.CaptureFixture) -> None:
    subject, held_out = invres.items()[0]["subject"], invres.items("validation")[0]["subject"]
    image, label = damaged / invres.modality.format(subject), damaged / invres.label.format(subject)
    options = {**invres.training, "dataset_dir": damaged, "fold": int(subject == held_out)}
    if damage == "missing":
        image.unlink()
    elif damage == "truncated":
        file = image if invres.name == "brats" else image.with_suffix(".img")
        os.truncate(file, file.stat().st_size // 2)
    elif damage == "shape":
        rewrite(image, lambda array, affine: (array[:-1], affine))
    elif damage == "label":
        rewrite(label, set_first(77))
    elif damage == "NaN":
        rewrite(image, set_first(np.nan))
    elif damage == "folds":
        options["folds"] = 9
    else:
        options["dataset_dir"] = damaged / "nowhere"
    line = last_line(invres.bundle, "train", "quick", capsys=capsys, **options)
    assert re.match("error: " + message.format(subject=subject), line), line
    assert not list(Path("models").glob("*.pt")) if Path("models").exists() else True


def test_checkpoints(invres_here: Path, invres: Invres, capsys: pytest.CaptureFixture) -> None:
    """None, of another network, of a training that is over."""
    options = {**invres.training, "capsys": capsys}
    line = last_line(invres.bundle, "train", "baseline", "quick", "evaluate", **options)
    assert re.match(
        r"error: ValueError: CheckpointReader: \./models/model.pt must be a whole checkpoint that fits", line
    )
    line = last_line(invres.bundle, "train", "quick", **{**options, "epochs": 1, "resume": True})
    assert re.match(r"error: ValueError: CheckpointReader: \./models/resume.pt .* Epoch count \(2\)", line)
    shutil.rmtree("models")
    line = last_line(invres.bundle, "inference", "quick", dataset_dir=invres.data, capsys=capsys, **invres.tiny)
    assert re.match(
        r"error: FileNotFoundError: CheckpointReader: \./models/model.pt must be a checkpoint, .* Train", line
    )


def test_outputs_are_not_overwritten(invres_here: Path, invres: Invres, capsys: pytest.CaptureFixture) -> None:
    options = {**invres.tiny, "dataset_dir": invres.data, "section": "validation", "folds": 4}
    run(invres.bundle, "inference", "quick", **options)
    (file,) = Path("segmentations").glob("*.nii.gz")
    before = file.stat().st_mtime_ns
    line = last_line(invres.bundle, "inference", "quick", capsys=capsys, **options)
    assert re.match(rf"error: FileExistsError: SegmentationSaver: {file} must not exist.* overwrite=True", line)
    assert file.stat().st_mtime_ns == before
    run(invres.bundle, "inference", "quick", overwrite=True, **options)
    assert file.stat().st_mtime_ns > before
