"""States of several tensors, context with gradients, both directions, chains within chains."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_invertible.autograd import Inverse, InvertibleModule, InvertibleSequential
from monai_invertible.networks.layers import AdditiveCoupling, ChannelSplit
from tests.autograd.helper import Conditioned, Counted, assert_same, conv_branch, coupling_chain, example, loss, train


class Affine(InvertibleModule):
    """A layer as a user writes it: two directions, no steps."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.randn(channels, 1) / 10)
        self.shift = nn.Parameter(torch.randn(channels, 1))

    def forward(self, x, **context):
        return x * self.log_scale.exp() + self.shift

    def inverse(self, y, **context):
        return (y - self.shift) * (-self.log_scale).exp()


class Exchange(InvertibleModule):
    """Moves each tensor by a function of the other, and swaps them: a state of two tensors of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(6, 6)

    def forward(self, a, b, **context):
        return b, a + torch.tanh(self.map(b)).mean(1, keepdim=True)

    def inverse(self, a, b, **context):
        return b - torch.tanh(self.map(a)).mean(1, keepdim=True), a


def two(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return example(2, 2, 6, seed=seed), example(2, 2, 6, seed=seed + 50)


def test_state_of_two_tensors():
    assert_same(coupling_chain(split=False), lambda net: train(net, *two()))


@pytest.mark.parametrize("used", [0, 1])
def test_loss_of_one_of_two_outputs(used):
    def step(net):
        state = [t.requires_grad_() for t in two()]
        loss(net(*state)[used]).backward()
        return [t.grad for t in state]

    assert_same(coupling_chain(split=False), step)


@pytest.mark.parametrize("wanted", [0, 1])
def test_gradient_of_one_of_two_inputs(wanted):
    def step(net):
        state = list(two())
        state[wanted].requires_grad_()
        loss(*net(*state)).backward()
        return state[wanted].grad

    chain = coupling_chain(split=False)
    assert_same(chain, step)
    chain.requires_grad_(False)
    assert_same(chain, step)


def test_same_tensor_as_both_inputs():
    def step(net):
        x = example(2, 2, 6).requires_grad_()
        loss(*net(x, x)).backward()
        return x.grad

    assert_same(coupling_chain(split=False), step)


def test_state_beside_the_coupled_pair():
    """A coupling moves the last two tensors; the others pass, and an output that is an input stays one."""

    def step(net):
        other = example(3, 2, seed=9).requires_grad_()
        state = [t.requires_grad_() for t in two()]
        outputs = net(other, *state)
        loss(*outputs).backward()
        return [other.grad, *(t.grad for t in state)]

    assert_same(coupling_chain(split=False), step)


def test_layer_of_a_user():
    torch.manual_seed(0)
    chain = InvertibleSequential(Affine(), *coupling_chain(2), Affine(), Inverse(Affine())).double()
    assert_same(chain, lambda net: train(net, example()))
    assert_same(chain, lambda net: train(Inverse(net), example()))


def test_layer_that_reorders_its_state():
    torch.manual_seed(0)
    chain = InvertibleSequential(*[Exchange() for _ in range(5)]).double()
    assert_same(chain, lambda net: train(net, example(2, 3, 6), example(2, 1, 6, seed=4)), tolerance=1e-9)


def test_layer_with_a_branch_is_evaluated_three_times():
    calls = [0]

    class Shift(InvertibleModule):
        def __init__(self):
            super().__init__()
            self.branch = Counted(nn.Conv1d(2, 2, 1), calls)

        def forward(self, a, b, **context):
            return a + self.branch(b), b

        def inverse(self, a, b, **context):
            return a - self.branch(b), b

    chain = InvertibleSequential(Shift(), Shift()).double()
    loss(*chain(*[t.requires_grad_() for t in two()])).backward()
    assert calls == [6]


def test_context_leaf():
    assert_same(coupling_chain(3, Conditioned), lambda net: train(net, example(), time=example(2, 1, 1)))


def test_context_made_by_a_network():
    def step(net):
        time = example(2, 1, 1).requires_grad_()
        embedded = torch.tanh(time) * 2
        x = example().requires_grad_()
        (loss(net(x, time=embedded)) + loss(net(x, time=embedded + 1))).backward()
        return [time.grad, x.grad]

    assert_same(coupling_chain(3, Conditioned), step)


def test_context_is_the_state():
    def step(net):
        x = example(2, 4, 6).requires_grad_()
        loss(net(x, time=x[:, :2])).backward()
        return x.grad

    assert_same(coupling_chain(3, Conditioned), step)


def test_branch_gets_the_context_that_it_names():
    class Anything(Conditioned):
        def forward(self, x, **context):
            assert set(context) == {"time", "name", "unused"}
            return super().forward(x, context["time"])

    chain = InvertibleSequential(AdditiveCoupling(Conditioned(), conv_branch()), AdditiveCoupling(Anything())).double()
    context = {"name": "knee", "unused": torch.arange(3)}

    def step(net):
        time = example(2, 1, 1).requires_grad_()
        loss(net(example(), time=time, **context)).backward()
        return time.grad

    assert_same(chain, step)


def test_nested_context():
    class Nested(Conditioned):
        def forward(self, x, extra):
            return super().forward(x, extra["times"][0])

    def step(net):
        time = example(2, 1, 1).requires_grad_()
        loss(net(example(), extra={"times": [time, None]})).backward()
        return time.grad

    assert_same(coupling_chain(3, Nested), step)


def test_context_changed_in_place_raises():
    """Even where plain autograd saves only a function of it: exp(time) is computed again."""
    chain, time = coupling_chain(3, Conditioned), torch.zeros(1, dtype=torch.float64)
    y = chain(example(), time=time)
    time.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss(y).backward()


def test_inverse_of_a_chain_trains():
    calls = [0]
    chain = coupling_chain(3, lambda: Counted(nn.Conv1d(2, 2, 1), calls))
    network = InvertibleSequential(Inverse(chain), Affine()).double()
    assert_same(network, lambda net: train(net, example()))
    calls[0] = 0
    loss(network(example())).backward()
    assert calls == [12]


def test_both_directions_several_times_in_one_graph():
    """Cycles through one core, as in unpaired translation."""

    def step(net):
        x, y = example().requires_grad_(), example(seed=5).requires_grad_()
        back = net.inverse(torch.tanh(net(x)))
        forth = net(torch.tanh(Inverse(net)(y)))
        (loss(back, forth) + (back * forth).sum()).backward()
        return [x.grad, y.grad]

    assert_same(coupling_chain(), step)


def test_chains_in_a_chain_are_one_chain():
    calls = [0]
    branch = lambda: Counted(nn.Conv1d(2, 2, 1), calls)  # noqa: E731
    inner = InvertibleSequential(coupling_chain(2, branch), Inverse(coupling_chain(1, branch)))
    chain = InvertibleSequential(inner, coupling_chain(1, branch))
    assert_same(chain, lambda net: train(net, example()))
    calls[0] = 0
    loss(chain(example())).backward()
    assert calls == [16]


def test_hooked_chain_in_a_chain():
    """It is called as a whole, so that its hook fires; the chain in it walks back within the walk of the outer one."""
    seen = []
    chain = InvertibleSequential(coupling_chain(2), coupling_chain(2))
    chain[0].register_forward_hook(lambda *args: seen.append(1))
    assert_same(chain, lambda net: train(net, example()))
    assert seen == [1, 1]  # once as stored, once as inverted


def test_chains_in_branches():
    """The hybrid: an inner chain walks back within a step of the outer walk, one more evaluation of its branches."""
    calls = [0]

    def branch():
        inner = coupling_chain(2, lambda: Counted(nn.Sequential(nn.Conv1d(1, 1, 3, padding=1), nn.Tanh()), calls))
        return nn.Sequential(nn.Conv1d(2, 2, 1), nn.Dropout(0.2), inner, nn.BatchNorm1d(2), Affine(2))

    chain = coupling_chain(2, branch)
    assert_same(chain, lambda net: train(net, example()))
    calls[0] = 0
    loss(chain(example())).backward()
    assert calls == [3 * 16]


def test_chain_of_a_split_only():
    chain = InvertibleSequential(ChannelSplit((1, 3)))

    def step(net):
        x = example().requires_grad_()
        loss(*net(x)).backward()
        return x.grad

    assert_same(chain, step)
