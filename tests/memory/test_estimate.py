"""The estimate on networks small enough to count by hand, and against real steps."""

from __future__ import annotations

import copy

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import BasicUNet
from torch import nn
from torch.utils.checkpoint import checkpoint

from monai_invertible.memory import MemoryReport, estimate_training_step

N = 4000  # bytes of 1000 float32 numbers


class Exponentials(nn.Module):
    """Keeps one result per layer; one parameter of 1000 numbers."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))
        self.layers = layers

    def forward(self, x):
        y = x + self.weight
        for _ in range(self.layers):
            y = y.exp()
        return y


def test_every_row_by_hand():
    report = estimate_training_step(Exponentials(), (1000,), loss=torch.sum)
    assert report == MemoryReport(
        network="Exponentials",
        simulated=True,
        parameters=N,
        buffers=0,
        inputs=N,
        gradients=N,
        optimizer=2 * N,
        activations=3 * N + 4,  # three results (the output is the last) and the loss
        peak=4 * N + (3 * N + 4) + (2 * N + 4),  # the loss's gradient; those of two results, the one in and the one out
    )


@pytest.mark.parametrize(("optimizer", "copies"), [("adam", 2), ("sgd_momentum", 1), ("sgd", 0), (None, 0)])
def test_optimizer_state_counts_trainable_parameters_only(optimizer, copies):
    network = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 5, bias=False))
    network[0].requires_grad_(False)
    report = estimate_training_step(network, (1, 10), optimizer=optimizer)
    assert (report.parameters, report.gradients, report.optimizer) == (600, 200, copies * 200)


def test_real_adam_has_the_estimated_state():
    network = nn.Linear(10, 10)
    adam = torch.optim.Adam(network.parameters())
    network(torch.randn(1, 10)).sum().backward()
    adam.step()
    real = sum(v.nbytes for state in adam.state.values() for k, v in state.items() if k != "step")
    assert real == estimate_training_step(network, (1, 10)).optimizer


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_simulated_step_equals_a_real_one(autocast):
    network = BasicUNet(spatial_dims=3, in_channels=1, out_channels=2, features=(4, 4, 8, 8, 16, 4))
    simulated = estimate_training_step(network, (1, 1, 32, 32, 32), autocast=autocast)
    real = estimate_training_step(network, (1, 1, 32, 32, 32), autocast=autocast, simulate=False)
    assert simulated.simulated and not real.simulated
    for name in ("parameters", "inputs", "gradients", "activations", "peak"):
        # the instance norm of a real bfloat16 step keeps its statistics in another type
        assert getattr(simulated, name) == pytest.approx(getattr(real, name), rel=5e-3 if autocast else 0)


def test_activations_grow_with_depth_unless_checkpointed():
    class Checkpointed(Exponentials):
        def forward(self, x):
            return checkpoint(super().forward, x, use_reentrant=False)

    def activations(network):
        return estimate_training_step(network, (1000,), loss=torch.sum).activations

    assert activations(Exponentials(10)) - activations(Exponentials(3)) == 7 * N
    assert activations(Checkpointed(10)) == activations(Checkpointed(3))


def test_network_is_untouched():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout()).eval()
    before = copy.deepcopy(network.state_dict())
    for simulate in (True, False):
        estimate_training_step(network, (1, 1, 8, 8), simulate=simulate)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.training
    assert all(p.grad is None and type(p) is nn.Parameter for p in network.parameters())


def test_factory_builds_nothing_real():
    report = estimate_training_step(lambda: nn.Linear(2**20, 2**20), (1, 2**20))
    assert report.parameters == 4 * 2**40 + 4 * 2**20  # 4 TiB


def test_factory_equals_the_network_it_builds():
    def build():
        return BasicUNet(spatial_dims=2, in_channels=1, out_channels=2)

    assert estimate_training_step(build, (1, 1, 32, 32)) == estimate_training_step(build(), (1, 1, 32, 32))


def test_shared_parameters_count_once():
    layer = nn.Linear(10, 10, bias=False)
    assert estimate_training_step(nn.Sequential(layer, nn.Tanh(), layer), (1, 10)).parameters == 400


@pytest.mark.parametrize(
    "inputs",
    [
        [(2, 10), (2, 5), 3],
        [torch.zeros(2, 10), MetaTensor(torch.zeros(2, 5)), 3],
        {"x": (2, 10), "condition": torch.zeros(2, 5), "factor": 3},
    ],
    ids=["shapes", "tensors", "keywords"],
)
@pytest.mark.parametrize("simulate", [True, False])
def test_inputs_in_every_form(inputs, simulate):
    class Conditioned(nn.Linear):
        def forward(self, x, condition, factor):
            assert (x.shape, condition.shape, factor) == ((2, 10), (2, 5), 3)
            return {"result": [super().forward(x) + condition * factor]}

    report = estimate_training_step(Conditioned(10, 5), inputs, simulate=simulate)
    assert report.inputs == 80 + 40


def test_network_that_keeps_a_plain_tensor():
    class Shifted(nn.Linear):
        def __init__(self):
            super().__init__(10, 10)
            self.shift = torch.ones(10)

        def forward(self, x):
            return super().forward(x) + self.shift

    assert estimate_training_step(Shifted(), (1, 10)).parameters == 440


def test_networks_that_need_numbers_say_so():
    class Item(nn.Linear):
        def forward(self, x):
            return super().forward(x) * x.max().item()

    with pytest.raises(RuntimeError, match="Item cannot run on fake tensors.*simulate=False"):
        estimate_training_step(Item(10, 10), (1, 10))
    assert estimate_training_step(Item(10, 10), (1, 10), simulate=False).parameters == 440

    def build():
        return Item(int(torch.linspace(0, 10, 2).sum().item()), 10)

    with pytest.raises(RuntimeError, match="cannot be built on fake tensors.*a network built already"):
        estimate_training_step(build, (1, 10))


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="optimizer must be one of .*adam.*, got 'lion'"):
        estimate_training_step(nn.Linear(1, 1), (1, 1), optimizer="lion")


def test_table_is_readable():
    table = str(estimate_training_step(lambda: nn.Linear(1024, 1024, bias=False), (1, 1024)))
    assert "Training step of Linear, simulated on fake tensors" in table
    rows = {line[:31].strip(): line[31:].strip() for line in table.splitlines()[1:-1]}
    assert rows["parameters"] == "4.00 MiB" and rows["optimizer state"] == "8.00 MiB" and rows["buffers"] == "0 B"
    assert "PEAK" in rows
    assert "no kernel workspace" in table
