"""The bar of a run, and the guard against a loss that is no number."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from monai_invertible.handlers import FiniteLossHandler, ProgressHandler
from monai_invertible.memory import process_peak_bytes


def trainer() -> Engine:
    return Engine(lambda engine, loss: [{"loss": loss}])


def test_the_bar_shows_loss_memory_and_the_whole_run(capsys: pytest.CaptureFixture[str]) -> None:
    engine = trainer()
    ProgressHandler("training").attach(engine)
    engine.run([0.5, 0.25], max_epochs=3)
    shown = capsys.readouterr().err
    assert "training: 100%" in shown
    assert "6/6" in shown
    assert "loss=0.25" in shown
    memory = float(re.findall(r"memory=([\d.]+) GiB", shown)[-1])
    assert memory == pytest.approx(process_peak_bytes() / 2**30, abs=0.05)


def test_a_resumed_run_starts_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    engine = trainer()
    engine.load_state_dict({"epoch": 2, "max_epochs": 3, "epoch_length": 2})
    ProgressHandler().attach(engine)
    engine.run([0.5, 0.25])
    assert "6/6" in capsys.readouterr().err


def test_the_bar_shows_a_metric_of_the_validation(capsys: pytest.CaptureFixture[str]) -> None:
    engine, validation = trainer(), trainer()
    validation.state.metrics["psnr"] = 31.4159
    ProgressHandler(key_metric="psnr", evaluator=validation).attach(engine)
    engine.run([0.5])
    assert "psnr=31.42" in capsys.readouterr().err


def test_an_error_closes_the_bar_and_goes_on() -> None:
    engine = Engine(lambda engine, batch: 1 / batch)
    handler = ProgressHandler()
    handler.attach(engine)
    with pytest.raises(ZeroDivisionError):
        engine.run([1, 0])
    assert handler._bar is None


def test_a_run_that_is_terminated_closes_the_bar() -> None:
    engine = Engine(lambda engine, batch: engine.terminate(skip_completed=True))
    handler = ProgressHandler()
    handler.attach(engine)
    engine.run([0, 0])
    assert engine.state.iteration == 1 and handler._bar is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_training(bad: float) -> None:
    engine = trainer()
    FiniteLossHandler().attach(engine)
    with pytest.raises(FloatingPointError, match="iteration 2 of epoch 1.*checkpoint is kept"):
        engine.run([0.5, bad, 0.5])
    assert engine.state.iteration == 2


@pytest.mark.parametrize("output", [None, [], {"pred": 1.0}, [{"pred": 1.0}], 0.5])
def test_an_engine_without_a_loss(output: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The bar shows none; the guard does not pretend to guard."""
    engine = Engine(lambda engine, batch: output)
    ProgressHandler().attach(engine)
    engine.run([0])
    assert "loss=" not in capsys.readouterr().err
    FiniteLossHandler().attach(engine)
    with pytest.raises(ValueError, match='output must have a "loss", got none. Attach it to a trainer'):
        engine.run([0])


@pytest.mark.parametrize("output", [{"loss": float("nan")}, [{"loss": 1.0}, {"loss": torch.tensor(float("nan"))}]])
def test_any_item_of_the_output_can_stop_it(output: Any) -> None:
    engine = Engine(lambda engine, batch: output)
    FiniteLossHandler().attach(engine)
    with pytest.raises(FloatingPointError, match="the loss must be finite, got nan"):
        engine.run([0])


def test_the_losses_of_discriminators_and_single_terms_can_stop_it() -> None:
    engine = Engine(
        lambda engine, batch: {"loss": 1.0, "x": torch.zeros(2), "discriminator_y_loss": torch.tensor(batch)}
    )
    FiniteLossHandler().attach(engine)
    with pytest.raises(FloatingPointError, match="the discriminator_y_loss must be finite, got inf in iteration 2"):
        engine.run([0.5, torch.inf])
