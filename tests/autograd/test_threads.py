"""Several threads: over one graph, and with one module; nobody notices that a chain walks back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from monai_invertible.autograd import InvertibleSequential, set_backprop
from monai_invertible.autograd.replay import Environment
from monai_invertible.networks.layers import AdditiveCoupling
from tests.autograd.helper import coupling_chain, example, loss


@pytest.fixture(autouse=True)
def eager_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(*functions: Callable[[], Any]) -> list[Any]:
    """Results, or exceptions, of functions that run in a thread each."""
    found: list[Any] = [None] * len(functions)
    start = threading.Barrier(len(functions))

    def work(i: int) -> None:
        start.wait()
        try:
            found[i] = functions[i]()
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def smooth():
    return nn.Sequential(nn.Conv1d(2, 8, 3, padding=1), nn.Tanh(), nn.Conv1d(8, 2, 3, padding=1))


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
def test_two_backwards_over_one_graph(mode):
    chain, x = set_backprop(coupling_chain(4, smooth), mode), example(1, 4, 50).requires_grad_()
    leaves = [x, *chain.parameters()]
    expected = torch.autograd.grad(chain(x).sin().sum(), leaves)
    for _ in range(10):
        y = chain(x)
        losses = y.sin().sum(), y.sin().sum()
        results = at_once(*[lambda t=t: torch.autograd.grad(t, leaves, retain_graph=True) for t in losses])
        for result in results:
            assert not isinstance(result, Exception), result
            for a, b in zip(result, expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_module_trained_by_two_threads_keeps_all_updates_and_hooks():
    def branch():
        return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2), nn.Tanh())

    chain = coupling_chain(2, branch)
    lock, calls = threading.Lock(), [0]

    def count(*args: Any) -> None:
        with lock:
            calls[0] += 1

    chain[1].f.register_forward_hook(count)

    def train_ten() -> None:
        for _ in range(10):
            loss(chain(example())).backward()

    assert at_once(train_ten, train_ten) == [None, None]
    assert calls == [20]
    assert all(m.num_batches_tracked == 20 for m in chain.modules() if isinstance(m, nn.BatchNorm1d))


def test_eval_by_another_thread_stays():
    """While a backward runs whose forward was in training; a branch that is just being repeated may tell."""
    chain = coupling_chain(6, lambda: nn.Sequential(smooth(), nn.Dropout(0.5)))
    for _ in range(10):
        chain.train()
        total = loss(chain(example(2, 4, 40).requires_grad_()))
        results = at_once(total.backward, chain.eval)
        assert results[0] is None or "does not repeat itself" in str(results[0]), results
        assert not any(m.training for m in chain.modules())


def test_evaluation_by_another_thread_waits_for_a_repetition():
    """In between, the module has flags and buffers of an earlier forward."""
    module = nn.BatchNorm1d(2)
    environment = Environment(module, (torch.zeros(1),), "Test")
    with environment.record():
        pass
    module(torch.ones(2, 2, 3))
    order = []

    def evaluate() -> None:
        with Environment(module, (torch.zeros(1),), "Test").record():
            order.append("evaluated")

    thread = threading.Thread(target=evaluate)
    with environment.replay():
        thread.start()
        thread.join(0.05)
        order.append("repeated")
        assert module.num_batches_tracked == 0
    thread.join()
    assert order == ["repeated", "evaluated"]
    assert module.num_batches_tracked == 1


def test_branch_that_asks_for_the_activations_of_its_own_chain_raises():
    """In the recomputation it differentiates a part of the graph that the recomputation is for."""
    graph = []

    class Shows(nn.Conv1d):
        def forward(self, x):
            self.hidden = torch.tanh(super().forward(x))
            return self.hidden

    class Reaches(nn.Conv1d):
        def forward(self, x):
            if graph:
                torch.autograd.grad(graph[0], leaf, retain_graph=True)
            return super().forward(x)

    leaf = example().requires_grad_()
    chain = InvertibleSequential(AdditiveCoupling(Shows(2, 2, 1)), AdditiveCoupling(Reaches(2, 2, 1))).double()
    y = chain(leaf).sum()
    graph.append(chain[0].f.hidden.sum())
    with pytest.raises(RuntimeError, match="its own branches"):
        y.backward()
