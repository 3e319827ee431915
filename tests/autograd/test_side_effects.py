"""Hooks and forwards with effects beside their results: drawn numbers, buffers, lists, new tensors, copies."""

from __future__ import annotations

import collections
import copy
import gc
import pickle
import random

import pytest
import torch
from torch import nn

from monai_invertible.autograd import InvertibleModule, InvertibleSequential
from monai_invertible.memory import LiveBytes
from monai_invertible.networks.layers import AdditiveCoupling
from tests.autograd.helper import assert_same, coupling_chain, example, loss, train


class Branch(nn.Module):
    """Reads everything that a hook or its own forward may change."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Dropout(0.5), nn.Tanh())
        self.register_buffer("n", torch.ones(1, dtype=torch.float64))
        self.numbers = [1.0]

    def forward(self, x):
        return self.layers(x) * self.n * len(self.numbers)


class Layer(InvertibleModule):
    def __init__(self, branch) -> None:
        super().__init__()
        self.net = branch()

    def forward(self, x, **context):
        a, b = x.chunk(2, 1)
        return torch.cat([a, b + self.net(a)], 1)

    def inverse(self, y, **context):
        a, b = y.chunk(2, 1)
        return torch.cat([a, b - self.net(a)], 1)


def chains(branch):
    torch.manual_seed(0)
    layers = InvertibleSequential(Layer(branch), Layer(branch)).double()
    return [(coupling_chain(2, branch), "0.f"), (layers, "0.net")]


def draw(m, *args):
    torch.rand(3)


def change_buffer(m, *args):
    m.n.add_(1)


def change_child(m, *args):
    m.layers[1].p = 0.3


def change_list(m, *args):
    m.numbers.append(1.0)


def evaluate_child(m, *args):
    m.layers[1].eval()


def call_again(m, *args):
    m.layers(torch.ones(1, 2, 3, dtype=torch.float64))


HOOKS = [draw, change_buffer, change_child, change_list, evaluate_child, call_again]


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("hook", HOOKS, ids=lambda h: h.__name__)
def test_hook_with_an_effect_on_the_module(hook, mode):
    for chain, place in chains(Branch):

        def step(net, place=place):
            net.get_submodule(place).register_forward_pre_hook(hook)
            return train(net, example()) | {"n": net.get_submodule(place).n, "list": net.get_submodule(place).numbers}

        assert_same(chain, step, mode=mode)


class Forking(nn.Conv1d):
    """Draws, and puts the stream back by itself."""

    def __init__(self):
        super().__init__(2, 2, 3, padding=1)

    def forward(self, x):
        with torch.random.fork_rng(devices=[]):
            return super().forward(x) * torch.rand_like(x)


class SharedBuffer(nn.Module):
    """One tensor in two modules: one writes to it, the other reads it."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv1d(2, 2, 1), nn.Module()
        self.register_buffer("n", torch.ones(1, dtype=torch.float64))
        self.other.register_buffer("n", self.n)

    def forward(self, x):
        self.n.mul_(1.5)
        return self.conv(x) * self.other.n

    def _apply(self, function, recurse=True):
        super()._apply(function, recurse)
        self.other.n = self.n
        return self


class LateBuffer(nn.Module):
    """Fills one buffer and registers another in its forward."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 1)
        self.register_buffer("scale", None)

    def forward(self, x):
        if self.scale is None:
            self.scale = 1 + torch.rand(1, dtype=torch.float64)
        if "mean" not in dict(self.named_buffers()):
            self.register_buffer("mean", x.detach().mean())
        else:
            self.mean.lerp_(x.detach().mean(), 0.5)
        return nn.functional.dropout(self.conv(x) * self.scale + self.mean, 0.5)


class Unregistered(nn.Module):
    """Holds a module in a list."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 1)
        self.hidden = [nn.BatchNorm1d(2).double()]

    def forward(self, x):
        return torch.tanh(self.hidden[0](self.conv(x)))


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("branch", [Forking, SharedBuffer, LateBuffer, Unregistered], ids=lambda b: b.__name__)
def test_forward_with_an_effect(branch, mode):
    def step(net):
        first = train(net, example())
        hidden = [m.hidden[0].running_mean for m in net.modules() if isinstance(m, Unregistered)]
        return first | {f"again {k}": v for k, v in train(net, example(seed=3)).items()} | {"hidden": sum(hidden)}

    for chain, _ in chains(branch):
        assert_same(chain, step, mode=mode)


class Shared(nn.Module):
    """Draws from a generator that another branch draws from, too."""

    def __init__(self, generator):
        super().__init__()
        self.conv, self.generator = nn.Conv1d(2, 2, 1), generator

    def forward(self, x):
        return self.conv(x) * torch.rand(x.shape, generator=self.generator, dtype=x.dtype)


def test_inverse_that_draws_from_a_generator_in_another_order_raises():
    class Two(InvertibleModule):
        def __init__(self):
            super().__init__()
            generator = torch.Generator().manual_seed(1)
            self.f, self.g = Shared(generator), Shared(generator)

        def forward(self, x, **context):
            a, b = x.chunk(2, 1)
            a = a + self.f(b)
            return torch.cat([a, b + self.g(a)], 1)

        def inverse(self, y, **context):
            a, b = y.chunk(2, 1)
            b = b - self.g(a)
            return torch.cat([a - self.f(b), b], 1)

    with pytest.raises(RuntimeError, match="does not undo its forward"):
        loss(InvertibleSequential(Two()).double()(example())).backward()


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
def test_generators_cannot_be_context(mode):
    chain = InvertibleSequential(AdditiveCoupling(nn.Conv1d(2, 2, 1)), backprop=mode).double()
    for generator in (torch.Generator(), random.Random(1)):
        with pytest.raises(TypeError, match="generator cannot be context, got \\['noise'\\]"):
            chain(example(), noise=generator)


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
def test_list_in_the_context_that_changes_between_forward_and_backward(mode):
    class Scaled(nn.Conv1d):
        def forward(self, x, factors):
            return torch.tanh(super().forward(x)) * factors[0]

    def step(net):
        factors, x = [2.0], example().requires_grad_()
        y = net(x, factors=factors)
        factors[0] = 3.0
        loss(y).backward()
        return x.grad

    assert_same(coupling_chain(2, lambda: Scaled(2, 2, 1)), step, mode=mode)


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
def test_hook_of_a_nested_chain_that_draws_between_steps(mode):
    chain = InvertibleSequential(InvertibleSequential(Layer(Branch), Layer(Branch)), Layer(Branch)).double()

    def step(net):
        net[0].register_forward_pre_hook(draw)
        net[0].register_forward_hook(draw)
        return train(net, example())

    assert_same(chain, step, mode=mode)


def test_forward_that_changes_a_parameter_is_refused():
    class ActNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc, self.ready = nn.Parameter(torch.zeros(1, dtype=torch.float64)), False

        def forward(self, x):
            if not self.ready:
                self.loc.data.copy_(x.mean().detach())
                with torch.no_grad():
                    self.loc.add_(1)
                self.ready = True
            return torch.tanh(x - self.loc)

    chain = coupling_chain(1, ActNorm)
    with pytest.raises(RuntimeError, match="ActNorm changes its parameter 'loc' in its forward.*under torch.no_grad()"):
        chain(example())
    with torch.no_grad():
        chain(example())
    assert_same(chain, lambda net: train(net, example()))


def test_forward_that_changes_a_plain_tensor_is_refused():
    class Counting(nn.Conv1d):
        def __init__(self):
            super().__init__(2, 2, 1)
            self.calls = torch.zeros(1)

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    with pytest.raises(RuntimeError, match="changes the tensor in attribute 'calls' of Counting .*register_buffer"):
        coupling_chain(1, Counting)(example())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_scripted_branch():
    for make in (lambda b: AdditiveCoupling(b), lambda b: Layer(lambda: b)):
        torch.manual_seed(0)
        eager = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Tanh()).double()
        expected = train(InvertibleSequential(make(copy.deepcopy(eager))), example())
        got = train(InvertibleSequential(make(torch.jit.script(eager))), example())
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))], ids=["copy", "pickle"])
def test_network_copied_while_a_branch_is_evaluated(copied):
    """As by an average of weights, or a checkpoint written in another thread."""
    for chain, place in chains(Branch):
        copies = []
        chain.get_submodule(place).layers.register_forward_hook(Copying(chain, copies, copied))
        y = chain(example())
        loss(y).backward()
        hooks = copies[0].get_submodule(place).layers._forward_hooks.values()
        assert [type(hook) for hook in hooks] == [Copying]
        loss(copies[0](example())).backward()


class Copying:
    """A hook that copies the network once."""

    def __init__(self, network, copies, copied) -> None:
        self.arguments = network, copies, copied

    def __call__(self, *args) -> None:
        network, copies, copied = self.arguments
        if not copies:
            copies.append(None)
            copies[0] = copied(network)

    def __reduce__(self):
        return Copying, (None, [None], None)


Kept = collections.namedtuple("Kept", "activation")


class Holder:
    def __init__(self, activation):
        self.activation = activation


@pytest.mark.parametrize("kind", ["object", "named tuple", "closure", "tensor", "list"])
def test_forwards_without_backward_do_not_pile_up(kind):
    """Each forward remembers what the one before had left in an attribute; but not its graph."""

    class Keeping(nn.Conv1d):
        def __init__(self):
            super().__init__(2, 2, 1)
            self.kept = None

        def forward(self, x):
            y = torch.tanh(super().forward(x))
            kinds = {"object": Holder(y), "named tuple": Kept(y), "closure": lambda: y, "tensor": y, "list": [y]}
            self.kept = kinds[kind]
            return y

    chain, x = coupling_chain(2, Keeping), example(1, 4, 2048)
    gc.disable()
    try:
        with LiveBytes() as live:
            for _ in range(3):
                chain(x)
            few = live.current
            for _ in range(6):
                chain(x)
            assert live.current <= few + x.nbytes / 4
    finally:
        gc.enable()
