"""Accuracy, tables and pictures of a classification, with a MONAI evaluator and a network that says what it sees."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from matplotlib.axes import Axes
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from torch import Tensor, nn

from monai_invertible.handlers import ClassConfusionHandler, ConfusionSaver, MistakeSaver, PredictionSaver
from monai_invertible.metrics import ClassConfusion

CLASSES = ["red", "green", "blue"]
# name: label, probabilities, which are also the image's colour
IMAGES = {
    "c": (0, (0.9, 0.1, 0.0)),
    "a": (0, (0.1, 0.8, 0.1)),
    "d": (1, (0.2, 0.7, 0.1)),
    "b": (1, (0.0, 0.4, 0.6)),
    "e": (1, (0.5, 0.5, 0.0)),
}


class Shown(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image.mean(dim=(2, 3)).as_subclass(Tensor)


def evaluator(*handlers: Any, names: str = "cadbe", truth: bool = True, **options: Any) -> SupervisedEvaluator:
    items = [
        {
            "name": name,
            "image": torch.tensor(color)[:, None, None].repeat(1, 4, 4),
            **({"label": label} if truth else {}),
        }
        for name, (label, color) in ((name, IMAGES[name]) for name in names)
    ]
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=2),
        network=Shown(),
        key_val_metric={"accuracy": ClassConfusionHandler(CLASSES)} if truth else None,
        val_handlers=list(handlers),
        **options,
    )


def rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("decollate", [True, False])
def test_accuracy(decollate: bool) -> None:
    """By hand; a class without images has none. Two images alike in a distributed sampler's batch count once."""
    engine = evaluator(names="cadbea", decollate=decollate)
    for _ in range(2):  # a second epoch starts anew
        engine.run()
    assert engine.state.metrics == pytest.approx({"accuracy": 2 / 5, "accuracy_red": 1 / 2, "accuracy_green": 1 / 3})
    assert engine.state.metric_details["accuracy"].tolist() == [[1, 1, 0], [1, 1, 1], [0, 0, 0]]


def test_wrong_items() -> None:
    with pytest.raises(ValueError, match="ClassConfusionHandler: x must have a label to be scored, got none. Score"):
        engine = evaluator()
        engine.state.batch, engine.state.output = [{"name": "x"}], [{"pred": torch.zeros(3)}]
        ClassConfusionHandler(CLASSES).iteration_completed(engine)
    metric = ClassConfusion(3)
    for prediction, label in ((torch.zeros(4), 0), (torch.zeros(3), 3), (torch.zeros(3), -1), (torch.zeros(1, 3), 0)):
        with pytest.raises(ValueError, match=f"ClassConfusion: x must have 3 logits .* got shape .* and {label}. Give"):
            metric(prediction, label, "x")
    with pytest.raises(ValueError, match="there must be an image before its scores"):
        metric.aggregate()


def test_tables(tmp_path: Path) -> None:
    evaluator(PredictionSaver(tmp_path, CLASSES), ConfusionSaver(tmp_path, CLASSES)).run()
    assert rows(tmp_path / "predictions.csv") == [
        ["name", "class", "probability", "truth"],
        ["c", "red", "0.900000", "red"],
        ["a", "green", "0.800000", "red"],
        ["d", "green", "0.700000", "green"],
        ["b", "blue", "0.600000", "green"],
        ["e", "red", "0.500000", "green"],
    ]
    assert rows(tmp_path / "scores.csv") == [
        ["class", "images", "accuracy"],
        ["red", "2", "0.5"],
        ["green", "3", "0.333333"],
        ["blue", "0", "nan"],
        ["mean", "5", "0.4"],
    ]
    assert matplotlib.image.imread(tmp_path / "confusion.png").std() > 0.1


def test_predictions_without_truth(tmp_path: Path) -> None:
    evaluator(PredictionSaver(tmp_path, CLASSES), names="ca", truth=False).run()
    assert rows(tmp_path / "predictions.csv") == [
        ["name", "class", "probability"],
        ["c", "red", "0.900000"],
        ["a", "green", "0.800000"],
    ]


def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The most confident first, in their own colours."""
    shown, titles = [], []
    imshow, set_title = Axes.imshow, Axes.set_title
    monkeypatch.setattr(Axes, "imshow", lambda self, image: shown.append(image) or imshow(self, image))
    monkeypatch.setattr(Axes, "set_title", lambda self, text, **o: titles.append(text) or set_title(self, text, **o))
    mean, std = (10.0, 20.0, 30.0), (100.0, 100.0, 100.0)
    saver = MistakeSaver(tmp_path, CLASSES, mean, std, images=2)
    evaluator(saver, names="cadbea").run()
    assert titles == ["green 80 %\n(true: red)", "blue 60 %\n(true: green)"]
    assert shown[0][0, 0].tolist() == pytest.approx([20 / 255, 100 / 255, 40 / 255])
    assert (tmp_path / "mistakes.png").is_file()
    evaluator(MistakeSaver(tmp_path / "none", CLASSES), names="cd").run()
    assert not (tmp_path / "none").exists()
    evaluator(MistakeSaver(tmp_path, CLASSES, overwrite=True), names="cd").run()
    assert not (tmp_path / "mistakes.png").exists()


@pytest.mark.parametrize(
    ("saver", "file"),
    [(PredictionSaver, "predictions.csv"), (ConfusionSaver, "confusion.png"), (MistakeSaver, "mistakes.png")],
)
def test_nothing_is_overwritten(tmp_path: Path, saver: type, file: str) -> None:
    (tmp_path / file).write_text("mine")
    with pytest.raises(FileExistsError, match=f"{saver.__name__}: .*{file} must not exist.* overwrite=True"):
        evaluator(saver(tmp_path, CLASSES)).run()
    assert (tmp_path / file).read_text() == "mine"
    evaluator(saver(tmp_path, CLASSES, overwrite=True)).run()
    assert (tmp_path / file).read_bytes() != b"mine"
