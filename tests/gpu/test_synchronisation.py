"""A training step with default settings never waits for the device: host and GPU run side by side."""

from __future__ import annotations

import pytest
import torch

from monai_invertible.autograd import set_backprop
from tests.gpu.helper import batch_norm, chain, dropout, plain, state

pytestmark = pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature:UserWarning")


@pytest.fixture
def no_waiting(cuda):
    """Within it, an operation that waits for the device raises."""

    class NoWaiting:
        def __enter__(self):
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *error):
            torch.cuda.set_sync_debug_mode("default")

    yield NoWaiting()
    torch.cuda.set_sync_debug_mode("default")


def test_waiting_is_seen(cuda, no_waiting):
    """Whatever thread waits, that of backward too."""
    x = state(cuda).requires_grad_()
    y = x.square().sum()
    with no_waiting, pytest.raises(RuntimeError, match="synchronizing"):
        y.item()
    x.register_hook(lambda gradient: gradient.sum().item() and None)
    with no_waiting, pytest.raises(RuntimeError, match="synchronizing"):
        y.backward()


@pytest.mark.parametrize("mode", ["store", "invert", "checkpoint"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("branch", [plain, dropout, batch_norm], ids=lambda b: b.__name__)
def test_no_step_waits(cuda, no_waiting, branch, precision, mode):
    network = set_backprop(chain(cuda, branch, 4, dtype=torch.float32), mode)
    x = state(cuda, dtype=torch.float32)

    def step():
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            y = network(x)
        y.square().mean().backward()

    for _ in range(3):  # gradients exist, and libraries are loaded
        step()
    torch.cuda.synchronize()
    with no_waiting:
        for _ in range(10):
            step()


def test_no_step_waits_for_a_context_on_the_device(cuda, no_waiting):
    class Timed(torch.nn.Module):
        def __init__(self, dims):
            super().__init__()
            self.branch = plain(dims)

        def forward(self, x, time):
            return self.branch(x) * torch.exp(time)

    network = chain(cuda, Timed, dtype=torch.float32)
    x, time = state(cuda, dtype=torch.float32), torch.zeros((), device=cuda, requires_grad=True)
    network(x, time=time).square().mean().backward()
    torch.cuda.synchronize()
    with no_waiting:
        network(x, time=time).square().mean().backward()
