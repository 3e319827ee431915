"""Two threads, and two devices, in one graph: what is recomputed for one is not another's."""

from __future__ import annotations

import copy
import threading
from functools import partial

import pytest
import torch
from torch import nn

from monai_invertible.autograd import set_backprop
from tests.autograd.helper import assert_close, assert_same, loss, train
from tests.gpu.helper import chain, dropout, plain, snapshot, state

TRIALS = 10


def in_threads(*functions):
    """Run them at once; what each returned. The first error is raised."""
    results, errors, barrier = [None] * len(functions), [], threading.Barrier(len(functions))

    def work(i):
        barrier.wait()
        try:
            results[i] = functions[i]()
        except Exception as error:  # an assertion as well: it is raised again below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


@pytest.mark.parametrize("branch", [plain, dropout], ids=lambda b: b.__name__)
@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
def test_two_backwards_over_one_graph_in_two_threads(device, mode, branch):
    """As torch allows: each finds the gradients that one alone finds."""
    if mode == "checkpoint" and branch is dropout:
        pytest.skip("torch's own checkpoint repeats wrong masks in two threads: nothing to compare")
    net = set_backprop(chain(device, branch), mode)
    for trial in range(TRIALS):
        x = state(device, seed=trial).requires_grad_()
        leaves = [x, *net.parameters()]
        torch.manual_seed(trial)
        y = net(x)
        torch.manual_seed(trial)
        stored = set_backprop(copy.deepcopy(net), "store")
        expected = torch.autograd.grad(loss(stored(x)), [x, *stored.parameters()])
        total = loss(y)

        def gradients_of(total, times, leaves=leaves):
            return [g / times for g in torch.autograd.grad(total * times, leaves, retain_graph=True)]

        found = in_threads(partial(gradients_of, total, 1), partial(gradients_of, total, 2))
        for gradients in found:
            assert_close(dict(enumerate(gradients)), dict(enumerate(expected)))


def test_two_chains_trained_in_two_threads(device):
    """Without random numbers, whose stream the threads would share."""
    chains = [chain(device), chain(device, depth=5)]
    stored = [set_backprop(copy.deepcopy(c), "store") for c in chains]

    def steps(net):
        for seed in range(TRIALS):
            found = train(net, state(device, seed=seed))
        return snapshot(net, **found)

    found = in_threads(lambda: steps(chains[0]), lambda: steps(chains[1]))
    for got, net in zip(found, stored, strict=True):
        assert_close(got, steps(net))


class OnProcessor(nn.Module):
    """A branch that computes on the processor, whatever device its input is on."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x):
        return self.branch(x.cpu()).to(x.device)


@pytest.mark.parametrize("branch", [plain, dropout], ids=lambda b: b.__name__)
@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
def test_branches_on_two_devices(device, mode, branch):
    """Backward has a thread for each device, and both ask one walk for tensors; both random streams are repeated."""
    net = chain(device, branch)
    for layer in net:
        layer.f = OnProcessor(layer.f.cpu())
    for _ in range(TRIALS):
        assert_same(net, lambda net: train(net, state(device)), mode=mode)


def test_backward_in_another_thread_than_forward(device):
    def step(net):
        x = state(device).requires_grad_()
        total = loss(net(x))
        in_threads(total.backward)
        return x.grad

    assert_same(chain(device, dropout), step)


def test_state_on_two_devices_is_right_or_refused(cuda):
    """A state of two tensors, one of them on the processor."""

    class Across(nn.Module):
        """Reads one of the two and moves the other, on the other's device."""

        def __init__(self, branch, to):
            super().__init__()
            self.branch, self.to_device = branch, to

        def forward(self, x):
            return self.branch(x).to(self.to_device)

    net = chain(cuda)
    for layer in net:
        layer.split = None  # two tensors instead of the halves of one
        layer.f, layer.g = Across(layer.f.cpu(), cuda), Across(layer.g, torch.device("cpu"))
    a, b = state(cuda).chunk(2, dim=1)
    inputs = a.contiguous(), b.cpu()
    stored = set_backprop(copy.deepcopy(net), "store")
    expected = snapshot(stored, **train(stored, *inputs))
    try:
        found = snapshot(net, **train(net, *inputs))
    except (RuntimeError, TypeError, ValueError) as error:
        assert "device" in str(error) and type(net).__name__ in str(error)
        return
    for key, value in expected.items():  # one by one: they are on two devices
        assert_close({key: found[key]}, {key: value}, 1e-6)
