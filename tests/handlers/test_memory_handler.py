"""The memory handler on engines whose memory is known."""

from __future__ import annotations

import logging
import sys

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import nn

from monai_invertible.handlers import MemoryHandler


def engine_with(step, **kwargs):
    engine = Engine(step)
    handler = MemoryHandler(**kwargs)
    handler.attach(engine)
    return engine, handler


def test_live_peak_of_the_first_iteration_is_exact_and_later_ones_are_not_counted():
    def step(engine, batch):
        x = torch.zeros(1000 * engine.state.iteration)
        return float((x + batch).sum())

    engine, _ = engine_with(step)
    engine.run([1.0, 2.0, 3.0], max_epochs=2)
    assert engine.state.memory["live_peak"] == 8004  # x, its sum with the batch, and the total
    assert engine._process_function is step


def test_another_iteration_can_be_counted():
    engine, _ = engine_with(lambda engine, batch: torch.zeros(1000 * engine.state.iteration).sum(), live_iteration=4)
    seen = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: seen.append(e.state.memory.get("live_peak")))
    engine.run([0, 0, 0], max_epochs=2)
    assert seen == [None, 16004]


def test_counting_can_be_left_out():
    engine, _ = engine_with(lambda engine, batch: torch.zeros(1000).sum(), live_iteration=None)
    engine.run([0])
    assert "live_peak" not in engine.state.memory
    assert "cuda_peak" not in engine.state.memory


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_process_peak_is_that_of_the_epoch():
    def step(engine, batch):
        large = torch.ones(200 * 2**18 if engine.state.epoch == 2 else 1)
        return float(large[0])

    engine, _ = engine_with(step)
    peaks = []
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: peaks.append(e.state.memory["process_peak"]))
    engine.run([0], max_epochs=3)
    assert peaks[1] - peaks[0] > 180 * 2**20
    assert peaks[1] - peaks[2] > 180 * 2**20


def test_exception_leaves_no_counter_behind():
    def step(engine, batch):
        raise RuntimeError("stop")

    engine, handler = engine_with(step)
    with pytest.raises(RuntimeError, match="stop"):
        engine.run([0])
    assert torch._C._len_torch_dispatch_stack() == 0
    assert engine._process_function is step
    assert handler._live_peak is None


@pytest.mark.parametrize("name", [None, "memory_log"])
def test_log_line(name, caplog):
    engine, _ = engine_with(lambda engine, batch: torch.zeros(2**18).sum(), name=name)
    engine.logger.setLevel(logging.INFO)
    with caplog.at_level(logging.INFO):
        engine.run([0])
    (record,) = [r for r in caplog.records if "memory:" in r.message]
    assert "Epoch 1 memory: process_peak " in record.message and "live_peak 1.0 MiB" in record.message
    assert record.name == (name or engine.logger.name)


def test_supervised_trainer():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1))
    batch = {"image": torch.rand(2, 1, 16, 16), "label": torch.rand(2, 1, 16, 16)}
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=2,
        train_data_loader=[batch, batch],
        network=network,
        optimizer=torch.optim.Adam(network.parameters()),
        loss_function=nn.MSELoss(),
        train_handlers=[MemoryHandler()],
    )
    trainer.run()
    # at least the two maps of four channels that Tanh touches in backward
    assert trainer.state.memory["live_peak"] > 2 * 2 * 4 * 16 * 16 * 4
    assert trainer.state.iteration == 4


def test_iteration_numbers_start_at_one():
    with pytest.raises(ValueError, match="live_iteration counts from 1, got 0"):
        MemoryHandler(live_iteration=0)
