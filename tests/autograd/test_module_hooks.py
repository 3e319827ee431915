"""Forward hooks on layers, branches, nested chains and all modules: each mode calls them as often, and the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from monai_invertible.autograd import Inverse, InvertibleModule, InvertibleSequential
from monai_invertible.networks.layers import AdditiveCoupling, OrthogonalCoupling
from tests.autograd.helper import Counted, assert_same, conv_branch, coupling_chain, example, loss, train


def dropout():
    return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Dropout(0.5), nn.Tanh())


class Layer(InvertibleModule):
    """A user's layer with a random branch."""

    def __init__(self):
        super().__init__()
        self.net = dropout()

    def forward(self, x, **context):
        a, b = x.chunk(2, 1)
        return torch.cat([a, b + self.net(a)], 1)

    def inverse(self, y, **context):
        a, b = y.chunk(2, 1)
        return torch.cat([a, b - self.net(a)], 1)


def mixed_chain():
    torch.manual_seed(0)
    inner = InvertibleSequential(AdditiveCoupling(dropout(), conv_branch()), Layer())
    layers = coupling_chain(1, dropout), inner, OrthogonalCoupling(4, dropout()), Inverse(Layer()), Layer()
    return InvertibleSequential(*layers).double()


PLACES = ["0", "0.0", "0.0.f", "1", "1.0", "1.1", "1.1.net", "1.1.net.1", "2", "2.coupling.g", "3", "4", "4.net"]


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward"])
@pytest.mark.parametrize("place", PLACES)
def test_hook_that_looks(place, kind, mode):
    """It fires as often as stored, and the random numbers behind it stay the same."""
    seen: list[int] = []

    def step(net):
        seen.clear()
        getattr(net.get_submodule(place), f"register_{kind}_hook")(lambda *args: seen.append(1))
        return train(net, example()) | {"calls": len(seen)}

    assert_same(mixed_chain(), step, mode=mode)


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("place", PLACES)
def test_hook_that_computes_something_for_the_loss(place, mode):
    """A penalty on activations: it returns nothing, and what it computes is differentiated."""

    def step(net):
        penalties = []
        net.get_submodule(place).register_forward_hook(lambda m, x, y: penalties.append(torch.exp(y).square().mean()))
        x = example().requires_grad_()
        y = net(x)
        (loss(y) + sum(penalties)).backward()
        return [x.grad, len(penalties)]

    assert_same(mixed_chain(), step, mode=mode)


def test_hooked_coupling_evaluates_its_branches_twice():
    calls = [0]
    chain = coupling_chain(3, lambda: Counted(nn.Conv1d(2, 2, 1), calls))
    nested = InvertibleSequential(chain)
    for module in (chain, chain[1]):
        module.register_forward_hook(lambda *args: None)
    loss(nested(example())).backward()
    assert calls == [12]


@pytest.mark.parametrize("place", ["0", "0.0", "1", "2"])
@pytest.mark.parametrize("kind", ["result", "in place", "input", "context"])
def test_hook_that_changes_what_a_layer_is_given_or_returns_raises(place, kind):
    chain = mixed_chain()
    layer = chain.get_submodule(place)
    if kind == "result":
        layer.register_forward_hook(lambda m, x, y: 2 * y)
    elif kind == "in place":
        layer.register_forward_hook(lambda m, x, y: [y.detach().mul_(2)].clear())
    elif kind == "input":
        layer.register_forward_pre_hook(lambda m, x: (x[0] + 1,))
    else:
        layer.register_forward_pre_hook(lambda m, x, kwargs: (x, {"time": kwargs["time"] + 1}), with_kwargs=True)
    with pytest.raises(RuntimeError, match="InvertibleSequential: a forward hook changed .*Hook a branch .* instead"):
        chain(example(2, 4, 6), time=torch.ones(1, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_forward_pre_hook])
def test_hook_of_all_modules_fires_once(register, mode):
    seen: list[str] = []

    def step(net):
        seen.clear()
        handle = register(lambda m, *args: seen.append(type(m).__name__) if not hasattr(m, "steps") else None)
        try:
            return train(net, example()) | {"calls": len(seen)}
        finally:
            handle.remove()

    assert_same(mixed_chain(), step, mode=mode)


def test_hook_of_all_modules_that_changes_values_takes_part():
    def step(net):
        handle = register_module_forward_hook(lambda m, x, y: 2 * y if isinstance(m, nn.Tanh) else None)
        try:
            return train(net, example())
        finally:
            handle.remove()

    assert_same(mixed_chain(), step)


def test_hooks_are_left_as_they_are():
    chain = mixed_chain()
    hooks = [lambda *args: None for _ in range(3)]
    for hook in hooks:
        chain[0][0].f.register_forward_hook(hook)
    handle = register_module_forward_hook(hooks[0])
    y = chain(example())
    assert list(chain[0][0].f._forward_hooks.values()) == hooks
    loss(y).backward()
    assert list(chain[0][0].f._forward_hooks.values()) == hooks
    assert list(nn.modules.module._global_forward_hooks.values()) == [hooks[0]]
    handle.remove()


def test_hooks_of_replicas_are_not_wrapped_again():
    """DataParallel's replicas share the dictionaries of hooks with the module that they are copies of."""
    chain = coupling_chain(2, dropout)
    seen: list[int] = []
    hook = lambda *args: seen.append(1)  # noqa: E731
    chain[0].f.register_forward_hook(hook)
    for _ in range(3):
        seen.clear()
        replica = chain._replicate_for_data_parallel()
        loss(replica(example())).backward()
        assert seen == [1] and list(chain[0].f._forward_hooks.values()) == [hook]
