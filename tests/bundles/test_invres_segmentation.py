"""The two segmentation bundles: all their config files run, can be interrupted, and fail with a word of advice.

Everything runs at the smallest size, on sample data, from a directory that is not the bundle's.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from scipy.ndimage import binary_erosion, distance_transform_edt

from monai_invertible.data import brats_datalist, iseg_datalist
from tests.bundles.helper import (
    KILLED,
    ROOT,
    arguments,
    command,
    config_files,
    environment,
    foreign_directory,
    last_line,
    run,
    workflow,
)

TINY: dict[str, Any] = {
    "network_def__channels": [4, 8],
    "network_def__strides": [2],
    "roi_size": [16, 16, 16],
    "overlap": 0.0,
    "sw_batch_size": 8,
}
TRAINING: dict[str, Any] = {**TINY, "folds": 4, "epochs": 2, "batch_size": 2, "patches_per_volume": 2}
ITERATIONS = 3  # an epoch: 3 subjects, 2 patches each, in batches of 2


@dataclass(frozen=True)
class Kind:
    """What differs between the bundles."""

    name: str
    data: Path
    classes: dict[str, list[int]]
    labels: set[int]
    modality: str  # the first one's path, of a subject
    label: str
    shape: tuple[int, ...]

    @property
    def bundle(self) -> Path:
        return ROOT / "bundles" / f"{self.name}_invres_segmentation"

    @property
    def tiny(self) -> dict[str, Any]:
        return {**TINY, "spacing": [5.0] * 3 if self.name == "brats" else [16 / 3] * 3}

    @property
    def training(self) -> dict[str, Any]:
        return {**TRAINING, **self.tiny, "dataset_dir": self.data, **({"deform_prob": 1.0} if self.name == "brats" else {})}

    def items(self, folder: Path | None = None, section: str = "all") -> list[dict[str, Any]]:
        return {"brats": brats_datalist, "iseg": iseg_datalist}[self.name](folder or self.data, section, folds=4)


@pytest.fixture(scope="module", params=["brats", "iseg"])
def kind(request: pytest.FixtureRequest) -> Kind:
    data = request.getfixturevalue(f"{request.param}_folder")
    if request.param == "brats":
        classes, name = {"TC": [1, 4], "WT": [1, 2, 4], "ET": [4]}, "{0}/{0}_"
        return Kind("brats", data, classes, {0, 1, 2, 4}, name + "flair.nii.gz", name + "seg.nii.gz", (48, 48, 31))
    classes = {"CSF": [10], "GM": [150], "WM": [250]}
    return Kind("iseg", data, classes, {0, 10, 150, 250}, "{0}-T1.hdr", "{0}-label.hdr", (27, 36, 48))


@pytest.fixture(scope="module")
def trained(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the bundle was trained for two epochs. Not to be written to."""
    with foreign_directory(tmp_path_factory.mktemp("trained")) as folder:
        flow = workflow(kind.bundle, "train", "quick", **kind.training)
        assert flow.check_properties() == []
        flow.run()
        flow.finalize()
        assert flow.trainer.state.epoch == 2 and flow.trainer.state.iteration == 2 * ITERATIONS
        assert flow.evaluator.state.metrics.keys() == {"dice", *(f"dice_{name}" for name in kind.classes)}
        return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """The current directory: a copy of ``trained``."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    with foreign_directory(tmp_path):
        yield tmp_path


# ---------------------------------------------------------------------------------------------------------------- runs


def test_train(trained: Path, kind: Kind) -> None:
    assert sorted(path.name for path in (trained / "models").iterdir()) == ["model.pt", "resume.pt"]
    network = workflow(kind.bundle, "inference", "quick", **kind.tiny).network_def
    network.load_state_dict(torch.load(trained / "models" / "model.pt", weights_only=True))
    assert list((trained / "eval").glob("events.out.tfevents.*"))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0


def distance(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Hausdorff distance by scipy alone, from surface to surface."""
    if not (a.any() and b.any()):
        return float(np.linalg.norm(np.multiply(a.shape, spacing))) if a.any() or b.any() else 0.0
    edges = [x & ~binary_erosion(x) for x in (a, b)]
    return max(
        distance_transform_edt(~edges[1], spacing)[edges[0]].max(),
        distance_transform_edt(~edges[0], spacing)[edges[1]].max(),
    )


def test_evaluate(here: Path, kind: Kind) -> None:
    """The scores are those of the files that are written, by numpy and scipy alone, in the subject's geometry."""
    shutil.rmtree("eval")
    flow = workflow(kind.bundle, "train", "quick", "evaluate", **kind.training)
    assert flow.check_properties() == []
    flow.run()
    flow.finalize()
    (item,) = kind.items(section="validation")
    subject = item["subject"]
    truth, found = nibabel.load(item["label"]), nibabel.load(f"eval/{subject}.nii.gz")
    np.testing.assert_allclose(found.affine, truth.affine, atol=1e-4)
    assert found.shape == truth.shape[:3] and found.header.get_xyzt_units()[0] == "mm"
    a, b = np.asarray(found.dataobj), np.asarray(truth.dataobj).reshape(found.shape)
    assert a.dtype == np.uint8 and set(np.unique(a)) <= kind.labels
    with open("eval/scores.csv", encoding="utf-8") as file:
        row, mean = csv.DictReader(file)
    assert row["subject"] == subject and mean["subject"] == "mean" and list(row.values())[1:] == list(mean.values())[1:]
    for name, values in kind.classes.items():
        masks = np.isin(a, values), np.isin(b, values)
        spacing = tuple(float(size) for size in truth.header.get_zooms()[:3])
        assert float(row[f"dice_{name}"]) == pytest.approx(dice(*masks), rel=1e-4, abs=1e-6)
        assert float(row[f"hd100_{name}"]) == pytest.approx(distance(*masks, spacing), rel=1e-4)
        assert float(row[f"hd95_{name}"]) <= float(row[f"hd100_{name}"])
        assert flow.evaluator.state.metrics[f"dice_{name}"] == pytest.approx(float(row[f"dice_{name}"]), rel=1e-4)
    for picture in ("worst", "median"):
        assert matplotlib.image.imread(f"eval/{picture}.png").shape[1] == 990


def test_inference(here: Path, kind: Kind) -> None:
    """The folder as it is distributed; the same label maps as in the evaluation."""
    flow = workflow(kind.bundle, "inference", "quick", dataset_dir=kind.data, **kind.tiny)
    assert flow.check_properties() == []
    flow.run()
    flow.finalize()
    names = [item["subject"] for item in kind.items()]
    assert sorted(os.listdir("segmentations")) == sorted(
        f"{name}{end}" for name in names for end in (".nii.gz", ".png")
    )
    run(kind.bundle, "train", "quick", "evaluate", **kind.training)
    (item,) = kind.items(section="validation")
    one, other = (nibabel.load(f"{place}/{item['subject']}.nii.gz") for place in ("segmentations", "eval"))
    np.testing.assert_array_equal(one.dataobj, other.dataobj)


@pytest.mark.parametrize("names", [("vae",), ("partially", "vae"), ("baseline",), ("persistent",)], ids="-".join)
def test_every_model_trains_evaluates_and_infers(names: tuple[str, ...], kind: Kind, tmp_path: Path) -> None:
    with foreign_directory(tmp_path):
        options = {**kind.training, "epochs": 1, "patches_per_volume": 1}
        flow = workflow(kind.bundle, "train", *names, "quick", **options)
        assert flow.check_properties() == []
        flow.run()
        evaluated = run(kind.bundle, "train", *names, "quick", "evaluate", **options).evaluator.state.metrics
        trained = flow.evaluator.state.metrics
        assert {name: evaluated[name] for name in trained} == pytest.approx(trained)
        if "persistent" in names:
            assert len(list(Path("cache").glob("*.pt"))) == 4
        else:
            options = {**kind.tiny, "section": "validation", "folds": 4, "dataset_dir": kind.data}
            run(kind.bundle, "inference", *names, "quick", **options)
            assert len(os.listdir("segmentations")) == 2


def test_a_patch_is_drawn_anew_and_repeats_with_the_seed(kind: Kind) -> None:
    """The cache holds what was read, once a subject, not the patches."""

    def epoch(flow: Any) -> torch.Tensor:
        return torch.cat([item["image"].as_tensor() for item in flow.parser.get_parsed_content("train#dataloader")])

    options = {**kind.training, "batch_size": 1, "train__dataloader__shuffle": False}
    first = workflow(kind.bundle, "train", "quick", **options)
    one, two = epoch(first), epoch(first)
    assert len(one) == 6 and not torch.equal(one, two)
    assert len(first.parser.get_parsed_content("train#dataset")._cache) == 3
    assert torch.equal(one, epoch(workflow(kind.bundle, "train", "quick", **options)))
    assert not torch.equal(one, epoch(workflow(kind.bundle, "train", "quick", seed=1, **options)))


def test_bias_field_correction(kind: Kind, here: Path) -> None:
    if kind.name == "brats":
        pytest.skip("an option of iSeg")
    pytest.importorskip("SimpleITK", reason="pip install monai-invertible[data]")
    options = {**kind.tiny, "dataset_dir": kind.data, "section": "validation", "folds": 4}
    plain, corrected = (
        workflow(kind.bundle, "inference", "quick", correct_bias=correct, **options).parser for correct in (False, True)
    )
    images = [parser.get_parsed_content("dataset")[0]["image"] for parser in (plain, corrected)]
    assert images[0].shape == images[1].shape and not torch.allclose(*images)
    run(kind.bundle, "inference", "quick", correct_bias=True, **options)


# ------------------------------------------------------------------------------------------------------------ geometry


def rewritten(kind: Kind, folder: Path, change: Any) -> str:
    """A folder with the first subject, all of whose images went through ``change``, as NIfTI."""
    item = kind.items()[0]
    subject = item["subject"]
    for path in item["image"]:
        stem = Path(path).name.partition(".")[0]
        target = folder / (subject if kind.name == "brats" else "") / f"{stem}.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        image = nibabel.load(path)
        image = nibabel.Nifti1Image(np.asarray(image.dataobj, np.float32).reshape(image.shape[:3]), image.affine)
        nibabel.save(change(image), target)
    return subject


def turned(image: Any) -> Any:
    """The same head, its axes permuted and two of them reversed: a sagittal acquisition."""
    return image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))


def infer(kind: Kind, data: Path, output_dir: str, **options: Any) -> Any:
    run(kind.bundle, "inference", "quick", dataset_dir=data, output_dir=output_dir, **(options or kind.tiny))
    (file,) = Path(output_dir).glob("*.nii.gz")
    return nibabel.load(file)


def voxelwise(kind: Kind) -> dict[str, Any]:
    """Options, and a checkpoint, of a network that classifies each voxel by its first modality."""
    brats = kind.name == "brats"  # its normalised image: a voxel above 1 is bright
    network = torch.nn.Conv3d(4 if brats else 2, 3 if brats else 4, kernel_size=1)
    torch.nn.init.zeros_(network.weight)
    slopes, offsets = ([9, 9, 9], [0, 0, -9]) if brats else ([0, 0, 10, 20], [-99, 0, 5, -5])
    network.weight.data[:, 0, 0, 0, 0] = torch.tensor(slopes).float()
    network.bias.data = torch.tensor(offsets).float()
    torch.save(network.state_dict(), "voxelwise.pt")
    layer = {"_target_": "torch.nn.Conv3d", "kernel_size": 1}
    layer |= {"in_channels": network.in_channels, "out_channels": network.out_channels}
    return {"network_def": layer, "checkpoint": "voxelwise.pt", "spacing": kind.tiny["spacing"]}


def test_axes_may_have_any_order(here: Path, kind: Kind) -> None:
    """The mask of the turned image is the turned mask."""
    rewritten(kind, here / "plain", lambda image: image)
    rewritten(kind, here / "turned", turned)
    plain, found = (infer(kind, here / name, f"out_{name}") for name in ("plain", "turned"))
    wanted = turned(plain)
    assert found.shape == wanted.shape != plain.shape
    np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-4)
    np.testing.assert_array_equal(found.dataobj, wanted.dataobj)
    assert len(np.unique(plain.dataobj)) > 1


ANGLE = math.radians(30)
TURN = np.array([[math.cos(ANGLE), -math.sin(ANGLE), 0], [math.sin(ANGLE), math.cos(ANGLE), 0], [0, 0, 1]])
DIRECTIONS = {
    "anisotropic": np.diag([2.0, 3, 6]),
    "oblique": TURN @ np.diag([-3.0, 4, 5]),
    "sagittal": TURN @ np.array([[0, 0, 6.0], [-4, 0, 0], [0, 2, 0]]),
}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_voxels_may_have_any_size_and_direction(here: Path, kind: Kind, direction: str) -> None:
    """A ball at a place in mm, in a head: the mask has its place and size, and the affine of the input."""
    affine, shape = np.eye(4), np.array([160, 160, 160]) // np.linalg.norm(DIRECTIONS[direction], axis=0)
    affine[:3, :3] = DIRECTIONS[direction]
    affine[:3, 3] = [5, -3, 2] - affine[:3, :3] @ (shape / 2)
    place = np.einsum("ij,j...->i...", affine[:3, :3], np.indices(shape.astype(int))) + affine[:3, 3, None, None, None]
    ball = np.linalg.norm(place - np.array([20, 8, -10])[:, None, None, None], axis=0) < 30
    head = 100 * (np.linalg.norm(place, axis=0) < 65) + 100 * ball
    rewritten(kind, here / "data", lambda image: nibabel.Nifti1Image(head.astype(np.float32), affine))
    found = infer(kind, here / "data", "out", **voxelwise(kind))
    assert found.shape == ball.shape
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)
    np.testing.assert_allclose(found.header.get_zooms(), np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-5)
    assert dice(np.asarray(found.dataobj) == max(kind.labels), ball) > 0.93


def test_dicom_series(here: Path, kind: Kind) -> None:
    """Folders of one series each give the mask of the same images in NIfTI, up to the rounding of the grey values."""
    sitk = pytest.importorskip("SimpleITK", reason="pip install monai-invertible[data]")
    pytest.importorskip("itk", reason="pip install monai-invertible[data]")
    subject = rewritten(kind, here / "nifti", lambda image: image)
    for file in (here / "nifti").rglob("*.nii.gz"):
        image = sitk.Cast(sitk.Round(sitk.ReadImage(str(file))), sitk.sitkInt16)
        sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32), str(file))
        folder = here / "dicom" / file.relative_to(here / "nifti").with_name(file.name.partition(".")[0])
        folder.mkdir(parents=True)
        write_series(sitk, image, folder)
    wanted, found = (infer(kind, here / name, f"out_{name}") for name in ("nifti", "dicom"))
    assert os.listdir("out_dicom").sort() == [f"{subject}.nii.gz", f"{subject}.png"].sort()
    # a DICOM series has its rows and columns in LPS: compare in one orientation
    wanted, found = (nibabel.as_closest_canonical(image) for image in (wanted, found))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-2)
    assert (np.asarray(found.dataobj) == np.asarray(wanted.dataobj)).mean() > 0.999


def write_series(sitk: Any, image: Any, folder: Path) -> None:
    """One DICOM file a slice, as a scanner exports them."""
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = image.GetDirection()
    for index in range(image.GetDepth()):
        piece = image[:, :, index]
        position = image.TransformIndexToPhysicalPoint((0, 0, index))
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"1.2.3.{index + 1}",
            "0008|0060": "MR",
            "0018|0050": f"{image.GetSpacing()[2]:.6f}",
            "0020|000d": "1.2.3.1000",
            "0020|000e": "1.2.3.1000.1",
            "0020|0013": str(index),
            "0020|0032": "\\".join(f"{x:.6f}" for x in position),
            "0020|0037": "\\".join(f"{direction[i]:.6f}" for i in (0, 3, 6, 1, 4, 7)),
        }
        for tag, value in tags.items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{index:04d}.dcm"))
        writer.Execute(piece)


def test_subject_without_foreground(here: Path, kind: Kind, tmp_path: Path) -> None:
    """A healthy subject, and an empty image, have scores: the rules of the BraTS challenge."""
    data = shutil.copytree(kind.data, tmp_path / "data")
    (item,) = kind.items(data, "validation")
    for path in (*item["image"], item["label"]):
        image = nibabel.load(path)
        nibabel.save(image.__class__(np.zeros_like(np.asarray(image.dataobj)), image.affine, image.header), path)
    flow = run(kind.bundle, "train", "quick", "evaluate", **{**kind.training, "dataset_dir": data, "overwrite": True})
    assert flow.evaluator.state.metrics["dice"] == 1 and flow.evaluator.state.metrics["hd95"] == 0
    assert not np.asarray(nibabel.load(f"eval/{item['subject']}.nii.gz").dataobj).any()


# -------------------------------------------------------------------------------------------------------- interruption


def test_killed_and_resumed_as_if_never_interrupted(tmp_path: Path, kind: Kind) -> None:
    """SIGKILL in the middle of the second checkpoint: the first is whole; resumed from it, training repeats itself."""
    options = {**kind.training, "epochs": 3}
    files = config_files(kind.bundle, "train", "quick")
    process = arguments("-c", KILLED, config_file=files, **options)
    done = subprocess.run(process, cwd=tmp_path, env=environment(), capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert torch.load(tmp_path / "models" / "resume.pt", weights_only=True)["trainer"]["iteration"] == ITERATIONS
    with foreign_directory(tmp_path):
        resumed = run(kind.bundle, "train", "quick", resume=True, **options)
        whole = run(kind.bundle, "train", "quick", ckpt_dir=tmp_path / "whole", **options)
        assert resumed.evaluator.state.metrics == pytest.approx(whole.evaluator.state.metrics, rel=1e-5)
        one, other = (torch.load(Path(place, "resume.pt"), weights_only=True) for place in ("models", "whole"))
        torch.testing.assert_close(one["network"], other["network"])


def test_two_processes(kind: Kind, tmp_path: Path) -> None:
    """torchrun, gloo on a machine without GPU: one checkpoint, no trace of the wrapper in it."""
    if kind.name == "brats":
        pytest.skip("the same file as iSeg's (test_bundles_are_alike), which leaves one subject out for two processes")
    files = config_files(kind.bundle, "train", "quick", "multi_gpu_train")
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run")
    options = {**kind.training, "epochs": 1, "batch_size": 1}
    output = command(*launcher, cwd=tmp_path, config_file=files, **options)
    assert output.count("Saved checkpoint at epoch: 1") == 1
    (best,) = re.findall(r"Key metric: dice best value: (\S+)", output)
    with foreign_directory(tmp_path):
        flow = run(kind.bundle, "train", "quick", "evaluate", **kind.training)
        assert float(best) == pytest.approx(flow.evaluator.state.metrics["dice"], abs=1e-4)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def damaged(kind: Kind, tmp_path: Path) -> Iterator[Path]:
    """A copy of the sample set that a test may damage; the current directory is another one."""
    shutil.copytree(kind.data, tmp_path / "data")
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
def test_bad_data(damaged: Path, kind: Kind, damage: str, message: str, capsys: pytest.CaptureFixture) -> None:
    subject = kind.items()[0]["subject"]
    image, label = damaged / kind.modality.format(subject), damaged / kind.label.format(subject)
    options = {**kind.training, "dataset_dir": damaged, "fold": next_fold(kind, subject)}
    if damage == "missing":
        image.unlink()
    elif damage == "truncated":
        file = image if kind.name == "brats" else image.with_suffix(".img")
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
    line = last_line(kind.bundle, "train", "quick", capsys=capsys, **options)
    assert re.match("error: " + message.format(subject=subject), line), line
    assert not list(Path("models").glob("*.pt")) if Path("models").exists() else True


def next_fold(kind: Kind, subject: str) -> int:
    """A fold in which the subject is one of the training."""
    listing = {"brats": brats_datalist, "iseg": iseg_datalist}[kind.name]
    names = [[item["subject"] for item in listing(kind.data, "training", fold=fold, folds=4)] for fold in (0, 1)]
    return 0 if subject in names[0] else 1


def test_checkpoints(here: Path, kind: Kind, capsys: pytest.CaptureFixture) -> None:
    """None, of another network, of a training that is over."""
    options = {**kind.training, "capsys": capsys}
    line = last_line(kind.bundle, "train", "baseline", "quick", "evaluate", **options)
    assert re.match(
        r"error: ValueError: CheckpointReader: \./models/model.pt must be a whole checkpoint that fits", line
    )
    line = last_line(kind.bundle, "train", "quick", **{**options, "epochs": 1, "resume": True})
    assert re.match(r"error: ValueError: CheckpointReader: \./models/resume.pt .* Epoch count \(2\)", line)
    shutil.rmtree("models")
    line = last_line(kind.bundle, "inference", "quick", dataset_dir=kind.data, capsys=capsys, **kind.tiny)
    assert re.match(
        r"error: FileNotFoundError: CheckpointReader: \./models/model.pt must be a checkpoint, .* Train", line
    )


def test_outputs_are_not_overwritten(here: Path, kind: Kind, capsys: pytest.CaptureFixture) -> None:
    options = {**kind.tiny, "dataset_dir": kind.data, "section": "validation", "folds": 4}
    run(kind.bundle, "inference", "quick", **options)
    (file,) = Path("segmentations").glob("*.nii.gz")
    before = file.stat().st_mtime_ns
    line = last_line(kind.bundle, "inference", "quick", capsys=capsys, **options)
    assert re.match(rf"error: FileExistsError: SegmentationSaver: {file} must not exist.* overwrite=True", line)
    assert file.stat().st_mtime_ns == before
    run(kind.bundle, "inference", "quick", overwrite=True, **options)
    assert file.stat().st_mtime_ns > before


# -------------------------------------------------------------------------------------------------------- config files


def parsed(kind: Kind, *names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(config_files(kind.bundle, *names))
    return parser


def test_default_is_the_model_of_the_paper(kind: Kind) -> None:
    """The same network and processing in training and inference; the label map of the data set."""
    train, inference = parsed(kind, "train"), parsed(kind, "inference")
    networks = [parser.get_parsed_content("network_def") for parser in (train, inference)]
    assert networks[0].state_dict().keys() == networks[1].state_dict().keys()
    assert type(networks[0]).__name__ == "FullyInvertibleUNet"
    assert train.get_parsed_content("classes") == inference.get_parsed_content("classes") == kind.classes
    assert set(train["label_values"]) == kind.labels and train["learning_rate"] == 2e-4
    for key in ("spacing", "roi_size", "overlap", "inferer", "folds", "fold"):
        assert train[key] == inference[key], key
    validate = train["validate"]
    assert validate["preprocessing"]["transforms"][1:] == inference["preprocessing"]["transforms"][1:]
    text = json.dumps(validate["postprocessing"]).replace("@validate::", "@")
    assert json.loads(text) == inference["postprocessing"]


def test_bundles_are_alike() -> None:
    """What need not differ does not."""
    folders = [ROOT / "bundles" / f"{name}_invres_segmentation" for name in ("brats", "iseg")]
    names = [sorted(path.name for path in folder.glob("configs/*")) for folder in folders]
    assert names[0] == names[1]
    for name in ("evaluate.json", "vae.json", "persistent.json", "multi_gpu_train.json", "logging.conf"):
        assert len({(folder / "configs" / name).read_text(encoding="utf-8") for folder in folders}) == 1, name
    keys = [json.loads((folder / "configs/train.json").read_text(encoding="utf-8")).keys() for folder in folders]
    assert keys[0] ^ keys[1] == {"deform_prob", "correct_bias"}
