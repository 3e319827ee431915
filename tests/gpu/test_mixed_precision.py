"""Autocast and ``GradScaler``: gradients beside those of the stored chain, as close as the precision allows."""

from __future__ import annotations

import copy
import warnings
from functools import partial

import pytest
import torch

from monai_invertible.autograd import read_drift, set_backprop
from tests.autograd.helper import assert_close
from tests.gpu.helper import batch_norm, chain, dropout, plain, snapshot, state

DTYPES = [torch.float16, torch.bfloat16]
MODES = ["invert", "checkpoint"]


def steps(network, device, dtype, scale=2.0**12, number=2):
    """Training steps with SGD; the last one's gradients, unscaled, the parameters and the scale at the end."""
    torch.manual_seed(7)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler(device.type, init_scale=scale, enabled=dtype == torch.float16)
    for seed in range(number):
        optimizer.zero_grad()
        x = state(device, 3, seed=seed, dtype=torch.float32).requires_grad_()
        with torch.autocast(device.type, dtype):
            y = network(x)
            total = (y * torch.linspace(1, 2, y[0].numel(), device=device).view_as(y[:1])).square().mean()
        assert y.dtype == torch.float32
        scaler.scale(total).backward()
        scaler.unscale_(optimizer)
        found = snapshot(network)
        scaler.step(optimizer)
        scaler.update()
    used = scaler.get_scale()
    return found, {k: p.detach().clone() for k, p in network.named_parameters()}, used, y.detach()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("branch", [plain, dropout, batch_norm], ids=lambda b: b.__name__)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_beside_stored(device, dtype, branch, mode):
    net = set_backprop(chain(device, branch, 4, dims=3, dtype=torch.float32), mode)
    stored = set_backprop(copy.deepcopy(net), "store")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the drift guard's
        found, expected = (steps(network, device, dtype) for network in (net, stored))
    tolerance = 8 * torch.finfo(dtype).eps
    assert_close(found[0], expected[0], tolerance)
    assert_close(found[1], expected[1], tolerance)
    assert found[2] == expected[2]
    assert_close({"output": found[3]}, {"output": expected[3]}, tolerance)
    if mode == "invert":
        assert all(error < 1e-2 for error in read_drift(net).values())


def test_overflow_skips_the_step_as_stored(device):
    """Gradients that are not finite are the scaler's business, not the guard's."""
    net = chain(device, plain, 4, dims=3, dtype=torch.float32)
    stored = set_backprop(copy.deepcopy(net), "store")
    before = {k: p.detach().clone() for k, p in net.named_parameters()}
    run = partial(steps, device=device, dtype=torch.float16, scale=2.0**60, number=1)
    found, expected = run(net), run(stored)
    assert found[2] == expected[2] == 2.0**59
    assert_close(found[1], before, 0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_half_precision_before_the_chain(device, dtype):
    """A convolution under autocast gives halves; the chain's state is float32 all the same, and so is its drift."""
    net = torch.nn.Sequential(torch.nn.Conv3d(16, 16, 1), chain(device, plain, 4, dims=3, dtype=torch.float32))
    net = net.to(device)
    stored = set_backprop(copy.deepcopy(net), "store")
    found, expected = (steps(network, device, dtype) for network in (net, stored))
    assert_close(found[0], expected[0], 8 * torch.finfo(dtype).eps)
    assert read_drift(net)["1"] < 1e-3
