"""Every public layer and network on the device: gradients as stored, in both directions and every mode."""

from __future__ import annotations

import copy

import pytest
import torch

from monai_invertible import InvertibleSequential, set_backprop
from monai_invertible.autograd import BackpropSwitch
from monai_invertible.autograd.module import as_tuple
from tests.autograd.helper import assert_close, train
from tests.cases import LAYERS, NETS
from tests.gpu.helper import snapshot
from tests.tolerances import GRADIENT

LAYER_CASES = [
    pytest.param(case, id=f"{kind.__name__}-{i}") for kind, cases in LAYERS.items() for i, case in enumerate(cases)
]
NET_CASES = [
    pytest.param(case, id=f"{kind.__name__}-{i}") for kind, cases in NETS.items() for i, case in enumerate(cases)
]


def moved(case, device):
    """The network, its inputs and its context, in double precision on the device."""
    torch.manual_seed(0)
    context = {k: t.to(device) for k, t in case.extras().items()}
    return case.build().double().to(device), [t.to(device) for t in case.inputs()], context


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("case", LAYER_CASES)
def test_layer(device, case, mode):
    layer, inputs, context = moved(case, device)
    network = set_backprop(InvertibleSequential(layer), mode)
    stored = set_backprop(copy.deepcopy(network), "store")
    with torch.no_grad():
        outputs = as_tuple(copy.deepcopy(network)(*inputs, **context))

    def both(net):
        """Forward, and inverse, each from states that the other gives."""
        net.zero_grad()
        found = train(net, *inputs, **context)
        back = as_tuple(net.inverse(*(t.detach().requires_grad_() for t in outputs), **context))
        sum(t.square().sum() for t in back).backward()
        return snapshot(net, **{k: t for k, t in found.items() if t is not None}, **dict(net.named_buffers()))

    assert_close(both(network), both(stored), GRADIENT[torch.float64])


@pytest.mark.parametrize("case", NET_CASES)
def test_network(device, case):
    network, inputs, context = moved(case, device)
    modes = [set(m.backprop_modes) for m in network.modules() if isinstance(m, BackpropSwitch)]

    def step(net):
        torch.manual_seed(7)
        outputs = as_tuple(net(*inputs, **context))
        total = sum(t.square().sum() for t in outputs)
        if total.requires_grad:
            total.backward()
        return snapshot(net, **{f"output {i}": t for i, t in enumerate(outputs)}, **dict(net.named_buffers()))

    expected = step(set_backprop(copy.deepcopy(network), "store") if modes else copy.deepcopy(network))
    assert all(t is None or t.device == device or t.device.type == device.type for t in expected.values())
    for mode in set.intersection(*modes) - {"store"} if modes else set():
        assert_close(step(set_backprop(copy.deepcopy(network), mode)), expected, GRADIENT[torch.float64])
