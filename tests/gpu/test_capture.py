"""CUDA graphs: a captured training step is right, or capture is refused by an error that says so.

A captured graph replays kernels with the addresses of the capture. Whatever the engine decides on the host, such as the
place of a random stream or what a guard has measured, is not repeated; so wrong masks would be silent.
"""

from __future__ import annotations

import copy

import pytest
import torch

from monai_invertible.autograd import set_backprop, set_drift_guard
from tests.autograd.helper import assert_close, loss, train
from tests.gpu.helper import chain, dropout, plain, snapshot, state


def captured(network, device):
    """From an input to what a replayed training step finds with it, as torch's notes on CUDA graphs have it."""
    x = state(device).requires_grad_()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            network.zero_grad()
            loss(network(x)).backward()
    torch.cuda.current_stream().wait_stream(side)
    x.grad = None
    network.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = network(x)
        loss(y).backward()

    def replay(new):
        with torch.no_grad():
            x.copy_(new)
        torch.cuda.manual_seed(7)
        graph.replay()
        torch.cuda.synchronize()
        return snapshot(network, output=y, input=x.grad)

    return replay


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty:UserWarning")  # refused before the first kernel
@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "unguarded"])
@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("branch", [plain, dropout], ids=lambda b: b.__name__)
def test_captured_step_is_right_or_refused(cuda, branch, mode, guarded):
    network = set_backprop(chain(cuda, branch), mode)
    if not guarded:
        set_drift_guard(network, None, None)
    stored = set_backprop(copy.deepcopy(network), "store")
    expected = captured(stored, cuda)
    try:
        found = captured(network, cuda)
    except RuntimeError as error:
        texts, cause = [], error
        while cause is not None:  # torch may add that the capture has failed
            texts.append(str(cause))
            cause = cause.__context__
        refusal = [t for t in texts if t.startswith(type(network).__name__) and "captur" in t]
        assert refusal, f"not refused in words of the package's own: {texts}"
        torch.cuda.synchronize()  # and everything works as before
        assert_close(train(network.eval(), state(cuda)), train(stored.eval(), state(cuda)))
        return
    for seed in (2, 3):
        new = state(cuda, seed=seed)
        assert_close(found(new), expected(new))
