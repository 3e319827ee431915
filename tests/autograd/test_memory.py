"""What a chain keeps, how high it climbs, and how often it evaluates its branches."""

from __future__ import annotations

import gc
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from monai_invertible.autograd import InvertibleSequential, set_backprop, set_drift_guard
from monai_invertible.memory import LiveBytes
from monai_invertible.networks.layers import AdditiveCoupling
from tests.autograd.helper import Counted, coupling_chain, example, loss, train

SHAPE = (1, 8, 2048)  # large against weights and random states


def wide_branch():
    return nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.InstanceNorm1d(4), nn.LeakyReLU())


@contextmanager
def without_garbage_collector():
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure(chain, keep_output=False, shape=SHAPE):
    """(kept after forward, peak of the step), in activations; gradients of parameters and of the input left out."""
    set_drift_guard(chain, None, None)  # keeps a few numbers
    x = example(*shape).requires_grad_()
    chain(x).sum().backward()  # gradients exist from here on
    with LiveBytes() as live:
        y = chain(x)
        kept = live.current
        total = y.sum()
        if not keep_output:
            del y
        total.backward()
    return kept / x.nbytes, live.peak / x.nbytes


def test_kept_memory_and_peak_do_not_depend_on_depth():
    shallow, deep = measure(coupling_chain(4, wide_branch)), measure(coupling_chain(100, wide_branch))
    assert deep[0] == shallow[0] == 1
    assert deep[1] == pytest.approx(shallow[1], abs=0.01) and deep[1] <= 4.01
    assert measure(coupling_chain(4, wide_branch), keep_output=True)[1] <= 5.01
    stored = measure(set_backprop(coupling_chain(100, wide_branch), "store"))
    assert stored[0] > 200  # the measurement sees what autograd stores


def test_a_batch_needs_no_more_than_its_images():
    """The halves of a batch lie in memory with gaps between the images; gaps are not recomputed."""
    image, batch = measure(coupling_chain(4, wide_branch)), measure(coupling_chain(4, wide_branch), shape=(4, 8, 512))
    assert batch[0] == 1
    assert batch[1] <= image[1] + 0.01


def test_checkpoint_keeps_the_input_of_each_layer():
    kept, _ = measure(set_backprop(coupling_chain(20, wide_branch), "checkpoint"))
    assert 19 <= kept <= 22


def test_peak_with_tensors_that_backward_never_asks_for():
    """A result that nobody uses, such as a monitor's, is computed again as well, but does not pile up."""

    class Monitored(nn.Sequential):
        def forward(self, x):
            torch.tanh(self[0](x)).square().exp()
            return super().forward(x)

    shallow, deep = (measure(coupling_chain(n, lambda: Monitored(*wide_branch())))[1] for n in (3, 12))
    assert deep == pytest.approx(shallow, abs=0.1)


def test_buffers_that_nobody_changes_are_not_copied():
    class WithTable(nn.Conv1d):
        def __init__(self):
            super().__init__(4, 4, 3, padding=1)
            self.register_buffer("table", torch.zeros(100_000))

    chain = coupling_chain(10, WithTable)
    assert measure(chain)[0] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_each_branch_is_evaluated_twice(direction):
    calls = [0]
    chain = coupling_chain(5, lambda: Counted(nn.Conv1d(2, 2, 1), calls))
    y = getattr(chain, direction)(example().requires_grad_())
    assert calls == [10]
    loss(y).backward()
    assert calls == [20]


def test_no_branch_is_repeated_for_gradients_that_nobody_wants():
    """The first three layers are frozen and the input needs no gradient."""
    calls = [0]
    chain = coupling_chain(5, lambda: Counted(nn.Conv1d(2, 2, 1), calls))
    chain[:3].requires_grad_(False)
    loss(chain(example())).backward()
    assert calls == [14]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_one_evaluation_and_nothing_kept_without_gradients(mode):
    calls = [0]
    chain = coupling_chain(5, lambda: Counted(wide_branch(), calls))
    x = example(*SHAPE)
    with mode(), LiveBytes() as live:
        y = chain(x)
        assert live.current == y.nbytes
    assert calls == [10]
    assert not y.requires_grad


def test_dropped_forward_leaves_nothing_behind():
    chain = set_drift_guard(coupling_chain(4, wide_branch), None, None)
    x = example(*SHAPE).requires_grad_()
    with without_garbage_collector(), LiveBytes() as live:
        y = chain(x)
        assert live.current == y.nbytes
        del y
        assert live.current == 0


def test_after_backward_only_the_output_is_kept():
    chain = coupling_chain(4, wide_branch)
    x = example(*SHAPE).requires_grad_()
    chain(x).sum().backward()
    with without_garbage_collector(), LiveBytes() as live:
        y = chain(x)
        y.sum().backward()
        assert live.current == y.nbytes


def test_retained_graph_keeps_no_more_than_three_activations():
    """Output, the state that walking back has reached, and the tensors of the last branch."""
    chain = coupling_chain(20, wide_branch)
    x = example(*SHAPE).requires_grad_()
    chain(x).sum().backward()
    with without_garbage_collector(), LiveBytes() as live:
        y = chain(x)
        y.sum().backward(retain_graph=True)
        assert live.current <= 3 * x.nbytes
        del y
        assert live.current == 0


def test_the_output_is_let_go_on_the_way_back_unless_the_graph_is_retained():
    chain = coupling_chain(4, wide_branch)
    x = example(*SHAPE)

    def alive_in_the_first_layer(retain_graph):
        seen = []
        parameter = chain[0].f[0].weight
        handle = parameter.register_hook(lambda grad: seen.append(live.current))
        with LiveBytes() as live:
            total = chain(x).sum()
            total.backward(retain_graph=retain_graph)
        handle.remove()
        return seen[0] / x.nbytes

    alive_in_the_first_layer(False)  # gradients exist from here on
    saved = alive_in_the_first_layer(True) - alive_in_the_first_layer(False)
    assert saved >= 1


def test_failed_backward_leaves_nothing_behind():
    class Fails(nn.Conv1d):
        failing = False

        def forward(self, x):
            if Fails.failing:
                raise KeyError("recomputation")
            return super().forward(x)

    chain = InvertibleSequential(*[AdditiveCoupling(Fails(4, 4, 1)) for _ in range(3)]).double()
    x = example(*SHAPE).requires_grad_()
    with without_garbage_collector(), LiveBytes() as live:
        y = chain(x)
        Fails.failing = True
        with pytest.raises(KeyError):
            y.sum().backward()
        del y
        gc.collect()  # a traceback refers to frames, and they to it
        torch.ones(1, requires_grad=True).sum().backward()  # until now torch holds the error of the last backward
        assert live.current < 100


def test_gradients_of_later_layers_are_released_while_earlier_ones_are_computed():
    calls, order = [0], []
    chain = coupling_chain(4, lambda: Counted(nn.Conv1d(2, 2, 1), calls))
    for name, p in chain.named_parameters():
        p.register_post_accumulate_grad_hook(lambda p, name=name: order.append((name.split(".")[0], calls[0])))
    train(chain, example())
    layers = [layer for layer, _ in order]
    assert layers == sorted(layers, reverse=True) and len(order) == 16
    evaluations = [n for _, n in order]
    assert evaluations == sorted(evaluations) and evaluations[0] <= 9 and evaluations[-1] == 16


def test_optimizer_in_backward_needs_one_gradient_at_a_time():
    chain = coupling_chain(6, wide_branch)
    reference = coupling_chain(6, wide_branch)
    for network, mode in ((chain, "invert"), (reference, "store")):
        set_backprop(network, mode)
        for p in network.parameters():
            optimizer = torch.optim.SGD([p], lr=1e-3)

            def hook(p, optimizer=optimizer):
                optimizer.step()
                optimizer.zero_grad()

            p.register_post_accumulate_grad_hook(hook)
        for _ in range(3):
            loss(network(example(*SHAPE))).backward()
    for a, b in zip(chain.parameters(), reference.parameters(), strict=True):
        assert a.grad is None
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_guard_keeps_little():
    """At most four positions along each dimension, of the input and of the output."""
    kept = []
    for limit in (None, 1.0):
        chain = set_drift_guard(coupling_chain(4, wide_branch), None, limit)
        x = example(*SHAPE).requires_grad_()
        with LiveBytes() as live:
            y = chain(x)
            kept.append(live.current)
            del y
    assert 0 < kept[1] - kept[0] <= 2 * 4**3 * 8
