"""The allocator's peak: flat in depth, and a small part of what a stored chain takes.

``torch.cuda.max_memory_allocated`` sees what counting tensors cannot: the workspace of convolutions and all that
kernels allocate for themselves. On the processor ``LiveBytes`` stands in.
"""

from __future__ import annotations

import gc

import pytest
import torch

from monai_invertible.autograd import set_backprop
from monai_invertible.memory import LiveBytes
from tests.gpu.helper import HALF, chain, dropout, plain

SHALLOW, DEEP = 4, 24


def measure(net, device, precision=torch.float32, layout=torch.contiguous_format):
    """Kept after forward and peak of a step, in units of one activation in single precision, input apart."""
    side = 96 if device.type == "cuda" else 16
    x = torch.randn(1, 2 * HALF, side, side, side, device=device).to(memory_format=layout)
    net = net.to(memory_format=layout)

    def step(mark=lambda: None):
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            total = net(x).sum()
        mark()
        total.backward()

    step()  # gradients of parameters exist from here on, and libraries are loaded
    gc.collect()
    if device.type == "cpu":
        with LiveBytes() as live:
            step(lambda: live.mark("forward"))
        return live.phases["forward"].current / x.nbytes, live.peak / x.nbytes
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, kept = torch.cuda.memory_allocated(), []
    step(lambda: kept.append(torch.cuda.memory_allocated() - before))
    torch.cuda.synchronize()
    return kept[0] / x.nbytes, (torch.cuda.max_memory_allocated() - before) / x.nbytes


def build(device, depth, mode="invert", branch=plain):
    return set_backprop(chain(device, branch, depth, dims=3, dtype=torch.float32), mode)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
def test_peak_is_flat_in_depth_and_a_fraction_of_stored(device, layout, precision):
    if device.type == "cpu" and precision != torch.float32:
        pytest.skip("convolutions of halves take minutes on the processor")
    (few_kept, few), (many_kept, many) = (measure(build(device, n), device, precision, layout) for n in (SHALLOW, DEEP))
    stored_kept, stored = measure(build(device, DEEP, "store"), device, precision, layout)
    print(f"kept {few_kept:.2f}, {many_kept:.2f}, stored {stored_kept:.2f}; peak {few:.2f}, {many:.2f}, {stored:.2f}")
    assert many_kept == pytest.approx(few_kept, abs=0.1) and many_kept < 2.2
    assert many == pytest.approx(few, abs=0.3)
    assert many < stored / 4


def test_checkpointed_chain_keeps_a_state_a_layer(device):
    """The measurement sees what is kept."""
    kept, _ = measure(build(device, DEEP, "checkpoint"), device)
    assert DEEP - 1 < kept < DEEP + 3


def test_nothing_is_left_behind(device):
    """After backward, and after a forward whose output is dropped, as much is allocated as before."""
    if device.type == "cpu":
        pytest.skip("the allocator of a GPU is asked; tests/autograd/test_memory.py counts on the processor")
    net = build(device, 6, branch=dropout)
    x = torch.randn(1, 2 * HALF, 32, 32, 32, device=device)
    net(x).sum().backward()
    gc.collect()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        net(x).sum().backward()
        net(x)
    assert torch.cuda.memory_allocated() - before < x.nbytes / 2
