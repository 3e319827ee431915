"""Checkpoints: replaced in one step, never by a network that has diverged, and read with errors that help."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events

from monai_invertible.handlers import (
    BestCheckpointSaver,
    CheckpointReader,
    FiniteLossHandler,
    ResumeCheckpointSaver,
    ScalerState,
)


class Trainer(Engine):
    """Three epochs of one iteration; each adds one to the weight and scores what it is told."""

    def __init__(self, folder: Path, scores: list[float], losses: list[float] | None = None) -> None:
        super().__init__(self.step)
        self.network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.network.weight)
        self.scores, self.losses = scores, losses or [1.0] * len(scores)
        self.state.key_metric_name = "score"  # type: ignore[attr-defined]
        FiniteLossHandler().attach(self)
        self.add_event_handler(Events.EPOCH_COMPLETED, self.validate)
        self.best = BestCheckpointSaver(str(folder), {"network": self.network})
        self.best.attach(self)
        self.saved: dict[str, Any] = {"network": self.network, "trainer": self, "best": self.best}
        ResumeCheckpointSaver(str(folder), self.saved).attach(self)

    def step(self, engine: Engine, batch: Any) -> dict[str, float]:
        self.network.weight.data += 1
        return {"loss": self.losses[self.state.epoch - 1]}

    def validate(self) -> None:
        self.state.metrics["score"] = self.scores[self.state.epoch - 1]


def weight(file: Path) -> float:
    state = torch.load(file, weights_only=True)
    return float(state.get("network", state)["weight"])


def test_best_and_last(tmp_path: Path) -> None:
    Trainer(tmp_path, [1.0, 3.0, 2.0]).run([0], max_epochs=3)
    assert weight(tmp_path / "model.pt") == 2 and weight(tmp_path / "resume.pt") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "resume.pt"]


def test_the_best_score_survives_an_interruption(tmp_path: Path) -> None:
    Trainer(tmp_path, [1.0, 3.0]).run([0], max_epochs=2)
    again = Trainer(tmp_path, [0.0, 0.0, 2.0, 4.0])
    CheckpointReader(str(tmp_path / "resume.pt"), again.saved).attach(again)
    again.run([0], max_epochs=3)
    assert weight(tmp_path / "model.pt") == 2 and weight(tmp_path / "resume.pt") == 3
    again.run([0], max_epochs=4)
    assert weight(tmp_path / "model.pt") == 4


class ScalingTrainer(Trainer):
    """As MONAI's, it makes its scaler when it begins to run."""

    scaler: Any = None
    new_scaler: Any = None

    def run(self, *args: Any, **kwargs: Any) -> Any:
        self.scaler = self.new_scaler
        return super().run(*args, **kwargs)


def test_the_scaler_of_mixed_precision(tmp_path: Path) -> None:
    """Its state is that of the interrupted run; with none, then or now, nothing happens."""

    def scale(new_scaler: Any, max_epochs: int) -> float | None:
        trainer = ScalingTrainer(tmp_path, [1.0, 1.0, 1.0])
        trainer.new_scaler = new_scaler
        trainer.saved["scaler"] = ScalerState(trainer)
        ResumeCheckpointSaver(str(tmp_path), trainer.saved).attach(trainer)
        if max_epochs > 1:
            CheckpointReader(str(tmp_path / "resume.pt"), trainer.saved).attach(trainer)
        assert trainer.run([0], max_epochs=max_epochs).iteration == max_epochs
        return None if trainer.scaler is None else trainer.scaler.get_scale()

    def scaler(start: float) -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=start)

    assert scale(scaler(8.0), 1) == 8 and scale(scaler(2.0), 2) == 8
    assert scale(None, 3) is None
    assert scale(None, 1) is None and scale(scaler(2.0), 2) == 2


def test_what_is_none_is_left_out(tmp_path: Path) -> None:
    for max_epochs in (1, 2):
        trainer = Trainer(tmp_path, [1.0, 1.0])
        trainer.saved["nothing"] = None
        ResumeCheckpointSaver(str(tmp_path), trainer.saved).attach(trainer)
        if max_epochs == 2:
            CheckpointReader(str(tmp_path / "resume.pt"), trainer.saved).attach(trainer)
        assert trainer.run([0], max_epochs=max_epochs).iteration == max_epochs
    assert "nothing" not in torch.load(tmp_path / "resume.pt", weights_only=True)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Trainer(tmp_path, [1.0]).run([0], max_epochs=1)

    def full(checkpoint: Any, path: Path) -> None:
        path.write_bytes(b"half of a checkpoint")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        Trainer(tmp_path, [2.0]).run([0], max_epochs=1)
    assert weight(tmp_path / "model.pt") == 1 and weight(tmp_path / "resume.pt") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "resume.pt"]


@pytest.mark.parametrize("score", [math.nan, -math.inf])
def test_a_score_that_is_not_a_number_stops_the_training(score: float, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="BestCheckpointSaver: score must be a number, got .* learning rate"):
        Trainer(tmp_path, [1.0, score, 3.0]).run([0], max_epochs=3)
    assert weight(tmp_path / "model.pt") == 1 and weight(tmp_path / "resume.pt") == 1


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_training(loss: float, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="FiniteLossHandler: the loss must be finite, got .* epoch 2.*resume"):
        Trainer(tmp_path, [1.0, 2.0], [1.0, loss]).run([0], max_epochs=2)
    assert weight(tmp_path / "model.pt") == 1 and weight(tmp_path / "resume.pt") == 1


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, "but does not exist. Train first"),
        (b"", ValueError, "fits network, got .*Error"),
        (
            b"half a checkpoint",
            ValueError,
            "must be a whole checkpoint that fits network, got .*Error",
        ),
        (
            {"weight": torch.zeros(2, 2)},
            ValueError,
            "fits network, got .*Error.* size mismatch for weight: .*configuration",
        ),
        ({"other": torch.zeros(1)}, ValueError, 'fits network, got .*Error.* Missing key.* "weight"'),
    ],
    ids=["missing", "empty", "text", "size", "key"],
)
def test_reader(content: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    engine = Engine(lambda engine, batch: None)
    CheckpointReader(str(file), {"network": torch.nn.Linear(1, 1, bias=False)}).attach(engine)
    with pytest.raises(error, match=f"CheckpointReader: {file} .*{message}"):
        engine.run([0])
