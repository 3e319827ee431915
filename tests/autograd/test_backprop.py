"""The three ways to train, and what the constructors refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_invertible.autograd import Inverse, InvertibleModule, InvertibleSequential, set_backprop
from monai_invertible.networks.layers import AdditiveCoupling, ChannelSplit
from tests.autograd.helper import Conditioned, Counted, assert_same, conv_branch, coupling_chain, example, loss, train


def noisy():
    return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.BatchNorm1d(2), nn.Dropout(0.3), nn.Tanh())


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("inverse", [False, True])
def test_same_results_in_every_mode(mode, inverse):
    chain = coupling_chain(4, noisy)
    assert_same(Inverse(chain) if inverse else chain, lambda net: train(net, example()), mode=mode)


def test_checkpoint_with_context_and_two_backwards():
    def step(net):
        time = example(2, 1, 1).requires_grad_()
        y = net(example(), time=time)
        loss(y).backward(retain_graph=True)
        loss(y).backward()
        return time.grad

    assert_same(coupling_chain(3, Conditioned), step, mode="checkpoint")


def test_checkpoint_evaluates_each_branch_twice():
    calls = [0]
    chain = set_backprop(coupling_chain(3, lambda: Counted(nn.Conv1d(2, 2, 1), calls)), "checkpoint")
    loss(chain(example())).backward()
    assert calls == [12]


def test_state_dict_is_the_same_in_every_mode():
    torch.manual_seed(0)
    layers = AdditiveCoupling(noisy(), noisy()), AdditiveCoupling(noisy())
    dicts = [InvertibleSequential(*layers, backprop=mode).state_dict() for mode in ("invert", "checkpoint", "store")]
    assert dicts[0].keys() == dicts[1].keys() == dicts[2].keys()
    fresh = coupling_chain(2, noisy)
    fresh.load_state_dict(set_backprop(coupling_chain(2, noisy), "store").state_dict())


def test_set_backprop_switches_every_chain_and_returns_the_network():
    network = nn.Sequential(
        nn.Conv1d(4, 4, 1), coupling_chain(2, lambda: coupling_chain(1, lambda: nn.Conv1d(1, 1, 1)))
    )
    assert set_backprop(network, "store") is network
    chains = [m for m in network.modules() if isinstance(m, InvertibleSequential)]
    assert len(chains) == 5 and all(c.backprop == "store" for c in chains)


def test_mode_can_be_switched_between_forward_and_backward():
    def step(net):
        mode, y = net.backprop, net(example())
        set_backprop(net, "checkpoint")
        loss(y).backward()
        set_backprop(net, mode)

    assert_same(coupling_chain(), step)


def test_unknown_mode():
    with pytest.raises(ValueError, match="InvertibleSequential: backprop must be one of .* got 'fast'. Choose"):
        InvertibleSequential(backprop="fast")
    chain = coupling_chain()
    with pytest.raises(ValueError, match="got 'fast'"):
        set_backprop(chain, "fast")
    assert chain.backprop == "invert"


def test_network_without_a_chain():
    with pytest.raises(
        ValueError, match="Conv1d has no invertible chain to switch. Build it from InvertibleSequential"
    ):
        set_backprop(nn.Conv1d(1, 1, 1), "store")


def test_layer_that_is_not_invertible():
    with pytest.raises(TypeError, match="layer 1 is Conv1d. Wrap it as the branch of a coupling"):
        InvertibleSequential(AdditiveCoupling(conv_branch()), nn.Conv1d(4, 4, 1))


def test_odd_channels():
    with pytest.raises(ValueError, match=r"channels must be even to split in halves, got 5. Use split=\(2, 3\)"):
        coupling_chain()(example(1, 5, 6))


def test_channels_that_do_not_split_as_asked():
    with pytest.raises(ValueError, match=r"split=\(1, 2\) needs 3 channels, got 4"):
        coupling_chain(split=(1, 2))(example())
    with pytest.raises(ValueError, match=r"two positive channel counts, got \(4,\)"):
        ChannelSplit((4,))


@pytest.mark.parametrize("branch", [nn.Conv1d(2, 3, 1), nn.Conv1d(2, 2, 3), nn.Conv1d(2, 1, 1)])
def test_branch_of_the_wrong_shape(branch):
    """Also where the sum would broadcast."""
    with pytest.raises(ValueError, match=r"branch Conv1d returned shape .* for a state of shape \(2, 2, 6\)"):
        InvertibleSequential(AdditiveCoupling(branch)).double()(example())


def test_coupling_without_branches():
    with pytest.raises(ValueError, match="at least one branch is needed"):
        AdditiveCoupling(None)


def test_unfinished_module():
    class Half(InvertibleModule):
        def forward(self, x, **context):
            return x * 2

    chain = InvertibleSequential(Half(), coupling_chain())
    with pytest.raises(NotImplementedError, match=r"Half: an invertible module must define inverse\(\*state"):
        chain.inverse(example())


def test_chain_is_a_sequence():
    chain = coupling_chain(4)
    assert len(chain) == 4 and list(chain) == [chain[i] for i in range(4)]
    part = set_backprop(chain, "store")[1:3]
    assert isinstance(part, InvertibleSequential) and part.backprop == "store" and part[0] is chain[1]


def test_empty_chain_is_the_identity():
    assert_same(InvertibleSequential(), lambda net: train(net, example()))
