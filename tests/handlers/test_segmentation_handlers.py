"""Scores, files and pictures of an evaluation, with a MONAI evaluator and a network that returns its input."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator

from monai_invertible.handlers import OverlaySaver, ScoreTableSaver, SegmentationMetricHandler, SegmentationSaver

CLASSES = {"core": [4], "whole": [2, 4]}
AFFINE = torch.tensor([[0, 0, 3.0, 5], [-2, 0, 0, 6], [0, 1, 0, 7], [0, 0, 0, 1]]).double()  # axes permuted, one turned
SHIFTS = {"c": 0, "a": 1, "b": 4}  # voxels of 2 mm between prediction and truth


def label(shift: int = 0) -> MetaTensor:
    array = torch.zeros(1, 12, 10, 8)
    array[:, 1 + shift : 6 + shift, 2:8, 2:6] = 2
    array[:, 1 + shift : 5 + shift, 4:6, 3:5] = 4
    return MetaTensor(array, affine=AFFINE)


def evaluator(*handlers: Any, names: str = "cab", truth: bool = True, **options: Any) -> SupervisedEvaluator:
    items = [{"image": label(), "subject": name, **({"label": label(SHIFTS[name])} if truth else {})} for name in names]
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=torch.nn.Identity(),
        key_val_metric={"dice": SegmentationMetricHandler("dice", CLASSES)} if truth else None,
        additional_metrics={"hd100": SegmentationMetricHandler("hd100", CLASSES)} if truth else None,
        val_handlers=list(handlers),
        **options,
    )


@pytest.mark.parametrize("decollate", [True, False])
def test_scores(decollate: bool) -> None:
    """By hand: a box moved by s of its n voxels overlaps by n - s; the distance is s voxels of 2 mm."""
    engine = evaluator(decollate=decollate)
    for _ in range(2):  # a second epoch starts anew
        engine.run()
    assert engine.state.metrics == pytest.approx(
        {
            "dice": (1 + 1 + 0.8 + 0.75 + 0.2 + 0) / 6,
            "dice_whole": 2 / 3,
            "dice_core": 1.75 / 3,
            "hd100": 10 / 3,
            "hd100_whole": 10 / 3,
            "hd100_core": 10 / 3,
        }
    )
    assert engine.state.best_metric == engine.state.metrics["dice"]
    assert engine.state.metric_details["dice"].shape == (3, 2)


def test_a_subject_without_label_cannot_be_scored() -> None:
    engine = evaluator(truth=False)
    SegmentationMetricHandler("dice", CLASSES).attach(engine, "dice")
    with pytest.raises(ValueError, match="SegmentationMetricHandler: c must have a label to be scored, got none"):
        engine.run()


def test_table(tmp_path: Path) -> None:
    evaluator(ScoreTableSaver(tmp_path, ["dice", "hd100"], name="subject", classes=list(CLASSES))).run()
    with (tmp_path / "scores.csv").open() as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["subject", "dice", "dice_core", "dice_whole", "hd100", "hd100_core", "hd100_whole"]
    assert [row["subject"] for row in table] == ["a", "b", "c", "mean"]
    assert [float(row["hd100"]) for row in table] == pytest.approx([2, 8, 0, 10 / 3], rel=1e-5)
    assert [float(row["dice_core"]) for row in table] == pytest.approx([0.75, 0, 1, 1.75 / 3], rel=1e-5)


def test_label_maps_are_saved_with_their_geometry(tmp_path: Path) -> None:
    engine = evaluator(SegmentationSaver(tmp_path / "out"), names="ca", truth=False)
    engine.run()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "c.nii.gz"]
    image = nibabel.load(tmp_path / "out" / "a.nii.gz")
    np.testing.assert_array_equal(image.affine, AFFINE.numpy())
    assert image.get_data_dtype() == np.uint8 and image.header.get_xyzt_units()[0] == "mm"
    assert image.get_qform(coded=True)[1] == image.get_sform(coded=True)[1] == 1  # the scanner's axes, for any reader
    np.testing.assert_array_equal(np.asarray(image.dataobj), label()[0].numpy())


def test_pictures_of_the_worst_and_the_median_case(tmp_path: Path) -> None:
    saver = OverlaySaver(tmp_path, CLASSES, metric="dice")
    titles: dict[str, str] = {}
    write = saver._write
    saver._write = lambda file, title, planes: (titles.update({file: title}), write(file, title, planes))  # type: ignore[method-assign,assignment,func-returns-value]
    evaluator(saver).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["median.png", "worst.png"]
    assert titles["worst"] == "b: the worst of 3, Dice 0.100 (core 0.000, whole 0.200)"
    assert titles["median"].startswith("a: the median of 3")


def test_picture_shows_the_patients_right_on_the_left(tmp_path: Path) -> None:
    """The same head in two orders of its axes gives the same slices."""
    planes = []
    for affine in (torch.diag(torch.tensor([1.0, 1, 1, 1])), torch.diag(torch.tensor([-1.0, 1, 1, 1]))):
        array = torch.zeros(1, 9, 10, 11)
        array[0, 6, 3:8, 2:9] = 4  # towards the patient's right, if x grows to the right
        array = array if affine[0, 0] > 0 else array.flip(1)
        image = torch.rand(1, 9, 10, 11, generator=torch.Generator().manual_seed(0)) + 0.1
        image = image if affine[0, 0] > 0 else image.flip(1)
        item = {"image": MetaTensor(image, affine=affine), "pred": MetaTensor(array, affine=affine)}
        planes.append(OverlaySaver(tmp_path, CLASSES)._slices(item))
    for one, other in zip(*planes, strict=True):
        np.testing.assert_array_equal(one["image"], other["image"])
        np.testing.assert_array_equal(one["pred"], other["pred"])
    axial = planes[0][0]["pred"].any(0)
    assert axial.shape == (9, 10) and axial[2].any() and not axial[6].any()


def test_colours_and_shape_of_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller class is on top of the larger one; the image is the chosen channel; voxels have their shape."""
    shown: list[tuple[np.ndarray, float]] = []

    def imshow(self: Axes, picture: np.ndarray, *, aspect: float, **options: Any) -> None:
        shown.append((picture, aspect))

    monkeypatch.setattr(Axes, "imshow", imshow)
    labels = torch.zeros(1, 12, 12, 12)
    labels[:, 5, 2:10, 2:10] = labels[:, 2:10, 5, 2:10] = labels[:, 2:10, 2:10, 5] = 2  # the largest slices are there
    labels[:, 4:7, 4:7, 4:7] = 4
    image = torch.stack([torch.ones(12, 12, 12), torch.linspace(1, 2, 12).expand(12, 12, 12)])
    affine = torch.diag(torch.tensor([-1.0, 2.0, 3.0, 1.0]))  # shown in this order of the axes
    item = {"image": MetaTensor(image, affine=affine), "pred": MetaTensor(labels, affine=affine)}
    saver = OverlaySaver(tmp_path, CLASSES, channel=1)
    saver._write("case", "case", saver._slices(item))
    assert [aspect for _, aspect in shown] == pytest.approx(2 * [2 / 1, 3 / 1, 3 / 2])
    coronal, prediction = shown[1][0], shown[4][0]  # the pictures are transposed: z, x
    assert coronal[0].max() < 0.1 and coronal[-1].min() > 0.9  # the channel that grows with z
    whole, core, grey = prediction[8, 8], prediction[5, 5], prediction[0, 0]
    assert core[0] > core[2] and whole[2] > whole[0] and grey[0] == grey[2]  # orange in blue


def test_pictures_of_every_case(tmp_path: Path) -> None:
    evaluator(OverlaySaver(tmp_path, CLASSES), names="ca", truth=False).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "c.png"]
    alone = matplotlib.image.imread(tmp_path / "a.png")
    evaluator(OverlaySaver(tmp_path, CLASSES, overwrite=True), names="a").run()
    assert matplotlib.image.imread(tmp_path / "a.png").shape[0] > alone.shape[0]  # a third row: the truth


def test_pictures_of_nothing(tmp_path: Path) -> None:
    """No foreground, a black image: still a picture."""
    item = {"image": 0 * label(), "pred": 0 * label(), "label": 0 * label()}
    saver = OverlaySaver(tmp_path, CLASSES)
    saver._write("empty", "empty", saver._slices(item))
    assert (tmp_path / "empty.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("file", "saver"),
    [
        ("c.nii.gz", lambda **options: SegmentationSaver(**options)),
        ("c.png", lambda **options: OverlaySaver(classes=CLASSES, **options)),
        ("median.png", lambda **options: OverlaySaver(classes=CLASSES, metric="dice", **options)),
    ],
)
def test_existing_files_are_kept_unless_told(file: str, saver: Any, tmp_path: Path) -> None:
    old = tmp_path / file
    old.write_text("old")
    with pytest.raises(FileExistsError, match=f"{file} must not exist. Choose another output_dir, or set overwrite"):
        evaluator(saver(output_dir=tmp_path)).run()
    assert old.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    engine = evaluator(saver(output_dir=tmp_path, overwrite=True))
    for _ in range(2):  # each run writes
        old.unlink()
        engine.run()
    assert old.stat().st_size > 100


@pytest.mark.parametrize("metric", [None, "dice"])
def test_an_item_that_a_distributed_sampler_repeats_is_written_once(metric: str | None, tmp_path: Path) -> None:
    evaluator(SegmentationSaver(tmp_path), OverlaySaver(tmp_path, CLASSES, metric=metric), names="cabc").run()
    assert len(list(tmp_path.iterdir())) == (6 if metric is None else 5)
