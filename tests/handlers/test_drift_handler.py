"""The drift handler tells the largest error of an epoch, and nothing of networks that keep their activations."""

from __future__ import annotations

import logging

import pytest
from ignite.engine import Engine
from torch import nn

from monai_invertible import InvertibleSequential, read_drift, set_backprop, set_drift_guard
from monai_invertible.handlers import DriftHandler
from monai_invertible.networks.layers.layerwise import layerwise_unit
from tests.autograd.helper import coupling_chain, example


def train(network, epochs=2):
    def step(engine, batch):
        network(batch).square().mean().backward()

    engine = Engine(step)
    engine.logger = logging.getLogger("training")
    DriftHandler(network).attach(engine)
    engine.run([example(2, 4, 16, seed=seed).float() for seed in range(3)], max_epochs=epochs)
    return engine


def test_logs_the_largest_error_and_the_chain(caplog):
    network = nn.Sequential(coupling_chain(2), coupling_chain(20), coupling_chain(1)).float()
    with caplog.at_level(logging.INFO, logger="training"):
        engine = train(network)
    assert engine.state.drift >= max(read_drift(network).values()) > 0
    lines = [line for line in caplog.messages if "drift" in line]
    assert len(lines) == 2 and "Epoch 2 drift: the input of chain '1'" in lines[1]


@pytest.mark.parametrize("network", [nn.Conv1d(4, 4, 1), set_backprop(coupling_chain(2).float(), "store")])
def test_is_silent_where_nothing_is_recomputed(network, caplog):
    with caplog.at_level(logging.INFO, logger="training"):
        assert train(network).state.drift == 0
    assert not any("drift" in line for line in caplog.messages)


def test_messages_name_the_chain_and_stop_the_training():
    units = (layer for _ in range(20) for layer in layerwise_unit(1, 4, negative_slope=0.01, invertible_eps=0))
    network = nn.Sequential(nn.Identity(), InvertibleSequential(*units))
    set_drift_guard(network)

    def step(engine, batch):
        network(batch)[-1].square().mean().backward()

    with pytest.raises(RuntimeError, match="chain '1'"):
        Engine(step).run([example(8, 4, 64).float()])
