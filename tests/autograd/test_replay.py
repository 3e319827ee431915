"""The recomputation repeats the forward exactly, and leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_invertible.autograd import InvertibleSequential
from monai_invertible.networks.layers import AdditiveCoupling
from tests.autograd.helper import assert_same, conv_branch, coupling_chain, example, loss, train


def conv():
    return nn.Conv1d(2, 2, 3, padding=1)


class FunctionalDropout(nn.Conv1d):
    def __init__(self):
        super().__init__(2, 2, 3, padding=1)

    def forward(self, x):
        return F.dropout(super().forward(x), 0.3)


class Noise(FunctionalDropout):
    def forward(self, x):
        noise = torch.rand_like(x) + torch.randn(x.shape[2:], dtype=x.dtype)
        return torch.tanh(nn.Conv1d.forward(self, x)) * noise + torch.bernoulli(torch.full_like(x, 0.5))


def dropout():
    return nn.Sequential(conv(), nn.Dropout(0.5), nn.Tanh(), nn.Dropout1d(0.2))


def batch_norm():
    return nn.Sequential(conv(), nn.BatchNorm1d(2), nn.Tanh())


def cumulative_batch_norm():
    return nn.Sequential(conv(), nn.BatchNorm1d(2, momentum=None), nn.Tanh())


def tracking_instance_norm():
    return nn.Sequential(conv(), nn.InstanceNorm1d(2, affine=True, track_running_stats=True), nn.Tanh())


def spectral_norm():
    return nn.Sequential(nn.utils.parametrizations.spectral_norm(conv()), nn.Tanh())


def old_spectral_norm():
    return nn.Sequential(nn.utils.spectral_norm(conv()), nn.Tanh())


def weight_norm():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(conv()), nn.Tanh())


class Forgetful(nn.Conv1d):
    """Its first evaluation after a change of ``size`` fills a cache, as position embeddings do."""

    def __init__(self):
        super().__init__(2, 2, 3, padding=1)
        self.size = 0
        self.calls = 0

    def forward(self, x):
        if self.size != x.shape[-1]:
            self.size = x.shape[-1]
            self.scale = torch.sigmoid(self.weight).mean().detach() + 0.1 * self.calls
        self.calls += 1
        return super().forward(x) * self.scale * self.calls


BRANCHES = [
    dropout, FunctionalDropout, Noise, batch_norm, cumulative_batch_norm, tracking_instance_norm, spectral_norm,
    old_spectral_norm, weight_norm, Forgetful,
]  # fmt: skip


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("branch", BRANCHES, ids=lambda b: b.__name__)
def test_branch_is_repeated(branch, mode):
    """Gradients, buffers and the random stream after two steps, a first forward and a second one before backward."""

    def step(net):
        first = train(net, example(4, 4, 6))
        a, b = net(example(4, 4, 6, seed=2)), net(example(4, 4, 6, seed=3))
        (loss(a) + loss(b)).backward()
        return first | {"random": torch.rand(3)}

    assert_same(coupling_chain(3, branch), step, mode=mode)


@pytest.mark.parametrize(
    "branch",
    [batch_norm, dropout, spectral_norm, old_spectral_norm, tracking_instance_norm],
    ids=lambda b: b.__name__,
)
def test_branch_in_eval_mode(branch):
    """Evaluated once more before backward."""

    def step(net):
        y = net(example(4, 4, 6))
        with torch.no_grad():
            net(example(4, 4, 6, seed=2))
        loss(y).backward()

    assert_same(coupling_chain(3, branch).eval(), step)


def test_old_weight_norm():
    with pytest.warns(FutureWarning, match="deprecated"):
        chain = coupling_chain(3, lambda: nn.Sequential(nn.utils.weight_norm(conv()), nn.Tanh()))
    with torch.no_grad():
        chain(example())  # otherwise the weight has a graph, and the oracle cannot copy it
    assert_same(chain, lambda net: train(net, example()))


@pytest.mark.parametrize("branch", [batch_norm, dropout], ids=lambda b: b.__name__)
@pytest.mark.parametrize("before", [True, False], ids=["train then eval", "eval then train"])
def test_mode_switched_between_forward_and_backward(branch, before):
    def step(net):
        net.train(before)
        y = net(example())
        net.train(not before)
        loss(y).backward()
        assert all(m.training is not before for m in net.modules())

    assert_same(coupling_chain(3, branch), step)


def test_random_stream_of_backward_is_untouched():
    def step(net):
        y = net(example())
        torch.manual_seed(99)
        before = torch.rand(1)
        loss(y).backward()
        return [before, torch.rand(2)]

    assert_same(coupling_chain(3, dropout), step)


@pytest.mark.parametrize("kind", ["register_forward_hook", "register_forward_pre_hook"])
@pytest.mark.parametrize("place", ["0", "0.f", "1.g.0"])
def test_hook_that_looks_fires_once(kind, place):
    seen = []

    def step(net):
        seen.clear()
        getattr(net.get_submodule(place), kind)(lambda *args: seen.append(len(args)))
        found = train(net, example())
        assert len(seen) == 1
        return found

    assert_same(coupling_chain(), step)


def test_backward_hooks_fire_once_with_the_right_gradients():
    def step(net):
        seen = {}
        for place in ("0.f", "1"):
            net.get_submodule(place).register_full_backward_hook(
                lambda m, inputs, outputs, place=place: seen.update(
                    {
                        place: inputs[0].clone(),
                        "out" + place: outputs[0].clone(),
                        "n" + place: 1 + seen.get("n" + place, 0),
                    }
                )
            )
        train(net, example())
        assert seen["n0.f"] == seen["n1"] == 1
        return seen

    assert_same(coupling_chain(), step)


@pytest.mark.parametrize("kind", ["result", "input", "in place", "kwargs"])
@pytest.mark.parametrize("when", ["stays", "removed before backward"])
def test_hook_that_changes_values_takes_part_in_both_evaluations(kind, when):
    def step(net):
        f = net[1].f
        if kind == "result":
            handle = f.register_forward_hook(lambda m, x, y: 2 * torch.tanh(y))
        elif kind == "input":
            handle = f.register_forward_pre_hook(lambda m, x: (torch.tanh(x[0]),))
        elif kind == "in place":
            handle = f[0].register_forward_hook(lambda m, x, y: [y.mul_(3)].clear())
        else:
            handle = f.register_forward_pre_hook(lambda m, x, k: ((torch.tanh(x[0]),), k), with_kwargs=True)
        x = example().requires_grad_()
        y = net(x)
        if when != "stays":
            handle.remove()
        loss(y).backward()
        assert len(f._forward_hooks) + len(f._forward_pre_hooks) == int(when == "stays" and kind != "in place")
        return x.grad

    assert_same(coupling_chain(), step)


def test_hook_registered_after_forward_does_not_fire_in_backward():
    chain, seen = coupling_chain(), []
    y = chain(example())
    chain[0].f.register_forward_hook(lambda *args: seen.append(args))
    loss(y).backward()
    assert not seen


def test_hook_that_changes_what_a_layer_returns_raises():
    chain = coupling_chain()
    chain[1].register_forward_hook(lambda m, x, y: 2 * y)
    with pytest.raises(RuntimeError, match="hook changed the input or output of layer AdditiveCoupling"):
        chain(example())


def test_recomputation_leaves_attributes_as_they_were():
    class Keeps(nn.Conv1d):
        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    chain = InvertibleSequential(AdditiveCoupling(Keeps(2, 2, 1), conv_branch())).double()
    y = chain(example())
    before = chain[0].f.last
    loss(y).backward()
    assert chain[0].f.last is before


def test_branch_that_does_not_repeat_itself_raises():
    class Fickle(nn.Conv1d):
        calls = 0

        def forward(self, x):
            Fickle.calls += 1
            x = super().forward(x)
            return x if Fickle.calls % 2 else torch.tanh(x)

    chain = coupling_chain(1, lambda: Fickle(2, 2, 1))
    chain[0].g = None
    with pytest.raises(
        RuntimeError, match="does not repeat itself: its forward saved 2 tensors and its recomputation 3"
    ):
        loss(chain(example().requires_grad_())).backward()


def test_uninitialised_branch_asks_for_a_first_run():
    chain = InvertibleSequential(AdditiveCoupling(nn.LazyConv1d(2, 1)))
    with pytest.raises(RuntimeError, match="LazyConv1d is not initialised. Run the network once under torch.no_grad"):
        chain(torch.ones(1, 4, 3))
    with torch.no_grad():
        chain(torch.ones(1, 4, 3))
    assert_same(chain.double(), lambda net: train(net, example()))
