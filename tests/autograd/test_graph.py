"""The chain's part of the graph is an ordinary one: retained, changed in place, in a checkpoint, under hooks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from monai_invertible.autograd import Inverse, InvertibleSequential
from monai_invertible.memory import LiveBytes
from monai_invertible.networks.layers import AdditiveCoupling, InvertibleLeakyReLU, Swap
from tests.autograd.helper import assert_same, conv_branch, coupling_chain, example, loss, train


def test_skip_connection_around_a_chain():
    def step(net):
        x = example().requires_grad_()
        h = torch.tanh(x)
        loss(net(h) + h * h, torch.sigmoid(h)).backward()
        return x.grad

    assert_same(coupling_chain(), step)


def test_input_and_output_are_left_alone():
    x = example()
    before, storage, version = x.clone(), x.untyped_storage().data_ptr(), x._version
    y = coupling_chain()(x)
    output = y.detach().clone()
    loss(y).backward()
    assert torch.equal(x, before) and x._version == version and x.untyped_storage().data_ptr() == storage
    assert torch.equal(y, output) and y._version == 0


def test_output_changed_in_place_raises():
    y = coupling_chain()(example())
    with pytest.raises(RuntimeError, match="the chain's output was changed in place.*ReLU"):
        loss(torch.relu_(y)).backward()


def test_input_changed_in_place_after_the_forward():
    """The chain does not need it any more."""

    def step(net):
        x = example()
        y = net(x)
        if net.backprop == "invert":
            x.zero_()
        loss(y).backward()

    assert_same(coupling_chain(), step)


def norms():
    """In training its buffers change at every evaluation, and the result with them."""
    return nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Conv1d(2, 5, 3, padding=1)), nn.BatchNorm1d(5), nn.Conv1d(5, 2, 1)
    )


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("branch", [conv_branch, norms])
def test_retained_graph_backward_four_times(mode, branch):
    def step(net):
        x = example().requires_grad_()
        y = net(x)
        loss(y).backward(retain_graph=True)
        y.sum().backward(retain_graph=True)
        part = net.get_submodule("1.f.0").bias
        first = torch.autograd.grad(y.square().sum(), part, retain_graph=True)[0]
        loss(y).backward()
        return [x.grad, first]

    assert_same(coupling_chain(3, branch), step, mode=mode)


def test_second_backward_without_retained_graph_raises():
    y = coupling_chain()(example())
    total = loss(y)
    total.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.sum().backward()


@pytest.mark.parametrize("reentrant", [True, False])
def test_chain_inside_checkpoint(reentrant):
    def step(net):
        x = example().requires_grad_()
        loss(checkpoint(net, checkpoint(net, x, use_reentrant=reentrant), use_reentrant=reentrant)).backward()
        return x.grad

    assert_same(coupling_chain(2, lambda: nn.Sequential(conv_branch(), nn.Dropout(0.3))), step)


def test_under_saved_tensor_hooks_of_others():
    packed = []

    def step(net):
        x = example().requires_grad_()
        with save_on_cpu(), saved_tensors_hooks(lambda t: packed.append(t.shape) or t, lambda t: t):
            y = net(x)
        loss(y).backward()
        return x.grad

    assert_same(coupling_chain(), step)
    packed.clear()
    step(coupling_chain())
    assert packed == [torch.Size([2, 4, 6])]  # the output, and nothing else, is saved through the hooks around


def test_anomaly_mode():
    with pytest.warns(UserWarning, match="Anomaly Detection"):
        anomaly = torch.autograd.detect_anomaly()
    with anomaly:
        assert_same(coupling_chain(), lambda net: train(net, example()))


def test_parts_of_the_graph_one_after_the_other():
    """Early layers first: they leave to the later ones what these will start from."""
    torch.manual_seed(0)
    layers = [AdditiveCoupling(None, nn.Conv1d(2, 2, 1)) for _ in range(3)]
    found = []
    for mode in ("store", "invert"):
        chain = InvertibleSequential(*layers, backprop=mode).double()
        y = chain(example(2, 4, 6)).square().sum()
        early = torch.autograd.grad(y, list(chain[0].g.parameters()), retain_graph=True)
        z = chain(example(2, 4, 6))
        partly = torch.autograd.grad(z.square().sum(), list(chain[0].g.parameters()))
        late = torch.autograd.grad(z.square().sum(), list(chain[2].g.parameters()))
        found.append([*early, *partly, *late])
    assert all(torch.allclose(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_independent_outputs_one_after_the_other(first, mode):
    """Each has a part of the graph to itself, which its backward frees."""
    torch.manual_seed(0)
    layers = InvertibleLeakyReLU(0.3), Swap(), InvertibleLeakyReLU(0.5), AdditiveCoupling(nn.Tanh(), split=False)

    def step(net):
        state = [example(2, 3, 4, seed=s).requires_grad_() for s in range(4)]
        outputs = net(*state)
        for i in range(4):
            loss(outputs[(first + i) % 4]).backward(retain_graph=i % 4 in (2, 3) or (first + i) % 4 in (2, 3))
        return [t.grad for t in state]

    assert_same(InvertibleSequential(Swap(), *layers, Swap(), InvertibleLeakyReLU(0.7)).double(), step, mode=mode)


def test_independent_output_after_the_others_graph_is_freed():
    chain = InvertibleSequential(InvertibleLeakyReLU(0.3), Swap(), InvertibleLeakyReLU(0.5)).double()

    def step(net):
        a, b = example(2, 3, 4).requires_grad_(), example(2, 3, 4, seed=3).requires_grad_()
        first, second = net(a, b)
        first.square().sum().backward()
        second.square().sum().backward()
        return [a.grad, b.grad]

    assert_same(chain, step)


@pytest.mark.parametrize("outer", ["invert", "checkpoint", "store"])
@pytest.mark.parametrize("inner", ["invert", "checkpoint", "store"])
@pytest.mark.parametrize("last", ["invert", "checkpoint", "store"])
def test_chains_of_other_modes_within_a_chain(outer, inner, last):
    def dropout():
        return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Dropout(0.5), nn.Tanh())

    chain = InvertibleSequential(
        coupling_chain(2, dropout), *coupling_chain(1), Inverse(coupling_chain(2, dropout)), AdditiveCoupling(dropout())
    ).double()

    def step(net):
        if net.backprop != "store":
            net.backprop, net[0].backprop, net[2].module.backprop = outer, inner, last
        forth = train(net, example())
        return forth | {f"back {k}": v for k, v in train(Inverse(net), example(seed=4)).items()}

    assert_same(chain, step)


def test_chain_of_another_mode_keeps_what_that_keeps():
    chain = InvertibleSequential(coupling_chain(4), coupling_chain(4))
    x = example(1, 4, 4096)

    def kept():
        with LiveBytes() as live:
            y = chain(x)
            return live.current / y.nbytes

    inverted = kept()
    chain[0].backprop = "store"
    mixed = kept()
    chain[1].backprop = "store"
    assert inverted < 1.1 and 2 * mixed < kept() + 4 and mixed > 5


def test_backward_in_inference_mode():
    def step(net):
        x = example().requires_grad_()
        y = loss(net(x))
        with torch.inference_mode():
            y.backward()
        return x.grad.clone()

    def dropout():
        return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Dropout(0.5), nn.Tanh())

    assert_same(coupling_chain(3, dropout), step)
