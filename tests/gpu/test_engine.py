"""The rest of the engine on the device: its guard, buffers updated once, retained graphs, higher derivatives."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_invertible.autograd import InvertibleSequential, read_drift, set_backprop
from monai_invertible.networks.layers import InvertibleLeakyReLU
from tests.autograd.helper import assert_same, loss, train
from tests.gpu.helper import HALF, batch_norm, chain, conv, plain, state

MODES = ["invert", "checkpoint"]


def smooth(dims):
    return nn.Sequential(conv(dims), nn.Tanh(), conv(dims))


class Planted(InvertibleLeakyReLU):
    """Its inverse is wrong in one channel, by a part of what is there; a user's layer with a fault."""

    part = 0.0

    def inverse(self, *state, **context):
        x = super().inverse(*state, **context).clone()
        x[:, 3] += self.part * x[:, 3].std() * torch.randn_like(x[:, 3])
        return x


def planted(device, part):
    net = InvertibleSequential(*chain(device, plain, 4, dtype=torch.float32), Planted(0.5)).to(device)
    net[4].part = part
    return net


def test_guard_is_silent_over_a_right_chain(device):
    net = chain(device, plain, 12, dtype=torch.float32)
    for seed in range(20):  # it may look at its numbers only now and then
        net(state(device, seed=seed, dtype=torch.float32)).square().mean().backward()
    assert 0 < read_drift(net)[""] < 1e-3
    assert isinstance(read_drift(net)[""], float)


@pytest.mark.parametrize("step", ["default", "side stream"])
def test_guard_stops_a_chain_that_loses_its_way(device, step):
    net = planted(device, 3.0)
    side = torch.cuda.Stream() if device.type == "cuda" and step == "side stream" else None
    with pytest.raises(RuntimeError, match=r"above 0\.1"):
        for seed in range(40):
            with torch.cuda.stream(side):  # None: as it is
                net(state(device, seed=seed, dtype=torch.float32)).square().mean().backward()
    torch.manual_seed(0)
    set_backprop(net, "checkpoint")(state(device, dtype=torch.float32)).square().mean().backward()  # the remedy


def test_guard_warns_of_a_smaller_error(device):
    net = planted(device, 0.15)
    with pytest.warns(UserWarning, match=r"above 0\.01"):
        for seed in range(40):
            net(state(device, seed=seed, dtype=torch.float32)).square().mean().backward()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("features", [HALF, 5000], ids=["few features", "many features"])
@pytest.mark.parametrize("momentum", [0.1, None], ids=str)
def test_batch_statistics_are_updated_once(device, momentum, features, mode):
    """cudnn's batch norm, too, writes past the version counter, to buffers of any size."""

    class Wide(nn.Module):
        def __init__(self, dims):
            super().__init__()
            self.first, self.last = nn.Conv2d(HALF, features, 1), nn.Conv2d(features, HALF, 1)
            self.norm = nn.BatchNorm2d(features, momentum=momentum)
            self.instance_norm = nn.InstanceNorm2d(HALF, momentum=0.1, track_running_stats=True)

        def forward(self, x):
            return self.instance_norm(self.last(torch.tanh(self.norm(self.first(x)))))

    def step(net):
        for seed in (1, 2):
            found = train(net, state(device, seed=seed))
        return found

    found = assert_same(chain(device, Wide, 2), step, mode=mode)
    assert all(int(b) == 2 for k, b in found["buffers"].items() if k.endswith(".norm.num_batches_tracked"))


@pytest.mark.parametrize("mode", MODES)
def test_batch_norm_under_autocast(device, mode):
    def step(net):
        x = state(device, dtype=torch.float32).requires_grad_()
        with torch.autocast(device.type, torch.bfloat16):
            y = net(x)
        loss(y).backward()
        return y, x.grad

    assert_same(chain(device, batch_norm, dtype=torch.float32), step, 4e-2, mode)


@pytest.mark.parametrize("mode", MODES)
def test_retained_graph_and_accumulation(device, mode):
    def step(net):
        x = state(device).requires_grad_()
        y = net(x)
        loss(y).backward(retain_graph=True)
        loss(y.tanh()).backward(retain_graph=True)
        return [x.grad, *torch.autograd.grad(y.sum(), [x, *net.parameters()])]

    assert_same(chain(device), step, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_double_backward(device, mode):
    """A gradient penalty."""

    def step(net):
        x = state(device).requires_grad_()
        y = net(x)
        (gradient,) = torch.autograd.grad(loss(y), x, create_graph=True)
        (gradient.square().sum() + y.sum()).backward()
        return gradient, x.grad

    assert_same(chain(device, smooth, 2), step, mode=mode)


@pytest.mark.parametrize("mode", MODES)
def test_frozen_beginning_and_hooks(device, mode):
    def step(net):
        seen = []
        net[0].requires_grad_(False)
        handles = [p.register_hook(lambda g: seen.append(g.double().sum())) for p in net[1].parameters()]
        handles.append(net[2].f.register_forward_hook(lambda m, x, y: 2 * torch.tanh(y)))
        y = net(state(device))
        loss(y).backward()
        for handle in handles:
            handle.remove()
        return [len(seen), *seen]

    assert_same(chain(device), step, mode=mode)
