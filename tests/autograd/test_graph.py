"""The chain's part of the graph is an ordinary one: retained, changed in place, in a checkpoint, under hooks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from monai_invertible.autograd import InvertibleSequential
from monai_invertible.networks.layers import AdditiveCoupling
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
