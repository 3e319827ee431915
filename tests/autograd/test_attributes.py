"""What a branch reads besides its input, parameters, buffers and context is as it was, or an error tells."""

from __future__ import annotations

import gc
import random

import numpy as np
import pytest
import torch
from torch import nn

from monai_invertible.memory import LiveBytes
from tests.autograd.helper import assert_same, coupling_chain, example, loss, train


class Reading(nn.Module):
    """A branch that reads one of its attributes, writes to some, and draws from generators."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3, padding=1)
        self.kind = kind
        self.tensor = torch.ones(1, dtype=torch.float64)
        self.pair = (1, 2)
        self.numbers = [2.0]
        self.same_numbers = self.numbers
        self.nested = {"a": [3.0]}
        self.text = "tanh"
        self.function = torch.tanh
        self.torch_generator = torch.Generator().manual_seed(1)
        self.python_generator = random.Random(1)
        self.numpy_generator = np.random.default_rng(2)

    def forward(self, x):
        y = self.function(self.conv(x))
        self.numbers.append(1.0)
        assert self.same_numbers is self.numbers
        self.seen = y.detach()
        factors = {
            "tensor": lambda: self.tensor,
            "tuple": lambda: self.pair[0],
            "list": lambda: self.numbers[0],
            "dict": lambda: self.nested["a"][0],
            "text": lambda: 2 if self.text == "tanh" else 1,
            "function": lambda: 1,
            "missing": lambda: 1 + hasattr(self, "added"),
            "torch generator": lambda: torch.rand(6, generator=self.torch_generator, dtype=y.dtype),
            "python generator": lambda: self.python_generator.random(),
            "numpy generator": lambda: self.numpy_generator.random(),
            "python": lambda: random.random(),
            "numpy": lambda: np.random.rand(),
        }
        return y * factors[self.kind]()


KINDS = [
    "tensor", "tuple", "list", "dict", "text", "function", "missing", "torch generator", "python generator",
    "numpy generator", "python", "numpy",
]  # fmt: skip


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("kind", KINDS)
def test_attribute_changed_between_forward_and_backward(kind, mode):
    """Stored activations do not notice; a recomputation must not either, and it leaves the changes as they are."""

    def step(net):
        random.seed(1)
        np.random.seed(1)
        x = example().requires_grad_()
        y = net(x)
        for branch in (m for m in net.modules() if isinstance(m, Reading)):
            branch.tensor = torch.zeros(1, dtype=torch.float64)
            branch.pair = (5, 5)
            branch.numbers[0] = 7.0
            branch.nested["a"][0] = 9.0
            branch.text = "relu"
            branch.function = torch.sigmoid
            branch.added = True
        loss(y).backward()
        branch = net[0].f
        assert branch.numbers == [7.0, 1.0] and branch.pair == (5, 5) and branch.function is torch.sigmoid
        return {
            "y": y.detach(),
            "x": x.grad,
            "seen": branch.seen,
            "python": random.random(),
            "numpy": np.random.rand(),
            "python generator": branch.python_generator.random(),
            "numpy generator": branch.numpy_generator.random(),
            "torch generator": torch.rand(1, generator=branch.torch_generator),
        }

    assert_same(coupling_chain(2, lambda: Reading(kind)), step, mode=mode)


def test_tensor_attribute_changed_in_place_raises():
    chain = coupling_chain(2, lambda: Reading("list"))
    y = chain(example())
    chain[0].f.tensor.mul_(2)
    with pytest.raises(RuntimeError, match="attribute 'tensor' of Reading was changed in place between"):
        loss(y).backward()


def test_replaced_object_that_nobody_keeps_raises():
    class Settings:
        factor = 2.0

    class Configured(Reading):
        def forward(self, x):
            return self.conv(x) * self.settings.factor

    chain = coupling_chain(1, lambda: Configured("list"))
    for branch in (chain[0].f, chain[0].g):
        branch.settings = Settings()
    y = chain(example())
    kept = chain[0].f.settings
    chain[0].f.settings = Settings()
    loss(y).backward(retain_graph=True)  # somebody keeps it
    chain[0].g.settings = None
    with pytest.raises(RuntimeError, match="attribute 'settings' of Configured was replaced between forward and backw"):
        loss(y).backward()
    assert kept.factor == 2.0


def test_activations_in_attributes_do_not_keep_their_graph():
    """A list that a shared branch fills is remembered by its second use: not with the graph of the first."""

    class Collecting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(2, 2, 1)
            self.found = []

        def forward(self, x):
            y = torch.tanh(self.conv(x))
            self.found.append(y)
            self.last = y
            return y

    shared = Collecting()
    chain = coupling_chain(3, lambda: shared)
    x = example(1, 4, 4096)
    chain(x).sum().backward()
    shared.found.clear()
    gc.disable()
    try:
        with LiveBytes() as live:
            y = chain(x)
            assert live.current > 4 * x.nbytes
            del y
            shared.found.clear()
            shared.last = None
            assert live.current < x.nbytes / 4
    finally:
        gc.enable()
    assert_same(chain, lambda net: train(net, example()))


def test_data_of_a_large_container_is_not_looked_at():
    """It stays what it is; remembering it would take longer than the branch."""

    class Logging(Reading):
        def forward(self, x):
            self.log.append(1)
            return super().forward(x)

    chain = coupling_chain(1, lambda: Logging("list"))
    for branch in (chain[0].f, chain[0].g):
        branch.log = [0] * 2000
    train(chain, example())
    assert len(chain[0].f.log) == 2002


def test_flag_set_by_somebody_else_meanwhile_stays():
    """As an ``eval()`` by another thread, here by the branch itself."""

    class Evaluating(Reading):
        def forward(self, x):
            y = super().forward(x)
            if self.switch.on:
                self.conv.eval()
            return y

    class Switch:
        on = False

    switch = Switch()
    chain = coupling_chain(1, lambda: Evaluating("list"))
    for branch in (chain[0].f, chain[0].g):
        branch.switch = switch
    y = chain(example())
    switch.on = True
    loss(y).backward()
    assert not chain[0].f.conv.training
