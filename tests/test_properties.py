"""What every public layer and network keeps: both directions, gradients as stored, flat memory, one ``state_dict``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import monai_invertible.autograd
import monai_invertible.networks.layers
import monai_invertible.networks.nets
from monai_invertible import InvertibleSequential, set_backprop, set_drift_guard
from monai_invertible.autograd import BackpropSwitch, Composition, Inverse, InvertibleModule
from monai_invertible.autograd.module import as_tuple
from monai_invertible.memory import LiveBytes
from monai_invertible.numerics import gradient_error
from tests.cases import LAYERS, NETS, Case
from tests.tolerances import GRADIENT, ROUND_TRIP

DTYPES = [torch.float64, torch.float32, torch.bfloat16]
LAYER_CASES = [
    pytest.param(kind, case, id=f"{kind.__name__}-{i}") for kind, all_ in LAYERS.items() for i, case in enumerate(all_)
]
NET_CASES = [
    pytest.param(kind, case, id=f"{kind.__name__}-{i}") for kind, all_ in NETS.items() for i, case in enumerate(all_)
]


def public_classes(*packages: Any, base: type) -> set[type]:
    return {
        value
        for package in packages
        for name in package.__all__
        if isinstance(value := getattr(package, name), type) and issubclass(value, base)
    }


def test_every_public_class_has_a_case_and_a_tolerance() -> None:
    layers = public_classes(monai_invertible.autograd, monai_invertible.networks.layers, base=InvertibleModule)
    assert layers - {InvertibleModule, Composition} == set(LAYERS) == set(ROUND_TRIP)
    assert public_classes(monai_invertible.networks.nets, base=nn.Module) == set(NETS)


def difference(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    return max(((x - y).abs().max() / y.abs().max()).item() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("kind", "case"), LAYER_CASES)
def test_inverse_undoes_forward_and_forward_undoes_inverse(
    kind: type[InvertibleModule], case: Case, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    layer, state, context = case.build().to(dtype), case.inputs(dtype), case.extras(dtype)
    before = tuple(t.clone() for t in state)
    with torch.no_grad():
        outputs = as_tuple(layer(*state, **context))
        assert all(o.dtype == dtype for o in outputs)
        back = as_tuple(layer.inverse(*outputs, **context))
        again = as_tuple(layer(*as_tuple(layer.inverse(*outputs, **context)), **context))
    assert difference(back, before) <= ROUND_TRIP[kind][dtype]
    assert difference(again, outputs) <= ROUND_TRIP[kind][dtype]
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True)), "the layer changed its input"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize(("kind", "case"), LAYER_CASES)
def test_gradients_equal_stored_ones(
    kind: type[InvertibleModule], case: Case, direction: str, mode: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    chain = InvertibleSequential(case.build()).to(dtype)
    state, context = case.inputs(dtype), case.extras(dtype)
    if direction == "inverse":
        with torch.no_grad():
            state = as_tuple(chain(*state, **context))
    leaves = [*state, *(t for name, t in context.items() if name != "mask")]

    def step(network: nn.Module) -> Tensor:
        function: Callable[..., Any] = network.inverse if direction == "inverse" else network  # type: ignore
        outputs = as_tuple(function(*(t.requires_grad_() for t in state), **requiring(context)))
        return sum(((o * torch.arange(1, o.numel() + 1).view_as(o).to(dtype).cos()) ** 2).sum() for o in outputs)  # type: ignore

    grads = {}
    for backprop in (mode, "store"):
        network = set_backprop(copy.deepcopy(chain), backprop)
        loss = step(network)
        grads[backprop] = torch.autograd.grad(loss, [*leaves, *network.parameters()])
    scale = max(g.abs().max() for g in grads["store"])
    error = max((a - b).abs().max() for a, b in zip(grads[mode], grads["store"], strict=True)) / scale
    assert error < GRADIENT[dtype]


def requiring(context: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t if name == "mask" else t.requires_grad_() for name, t in context.items()}


@pytest.mark.parametrize(("kind", "case"), LAYER_CASES)
def test_a_chain_keeps_its_output_whatever_its_depth(kind: type[InvertibleModule], case: Case) -> None:
    state, context = case.inputs(), case.extras()

    def kept(depth: int) -> tuple[int, int]:
        """Bytes, and those that training keeps of buffers (their values) and of inverses of norms (as much)."""
        pairs = [(case.build(), Inverse(case.build())) for _ in range(depth)]  # a layer may change the shape
        chain = InvertibleSequential(*(layer for pair in pairs for layer in pair)).double()
        set_drift_guard(chain, None, None)  # keeps a few numbers
        buffers = sum(b.numel() * b.itemsize for b in chain.buffers()) * 3 // 2
        with LiveBytes() as live:
            outputs = as_tuple(chain(*state, **context))
            result = live.current
        new = [o for o in outputs if all(o.data_ptr() != t.data_ptr() for t in state)]  # not passed through
        assert depth > 1 or 0 <= result - sum(t.numel() * 8 for t in new) <= buffers
        return result, buffers

    (short, few), (long, many) = kept(1), kept(3)
    assert 0 <= long - short <= many - few


@pytest.mark.parametrize(("kind", "case"), [*LAYER_CASES, *NET_CASES])
def test_state_dict_is_the_same_in_every_mode_and_loads(kind: type[nn.Module], case: Case) -> None:
    module, other = case.build(), case.build()
    other.load_state_dict(module.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))
    for switch in (m for m in module.modules() if isinstance(m, BackpropSwitch)):
        for mode in switch.backprop_modes:
            switch.backprop = mode
            assert module.state_dict().keys() == other.state_dict().keys()


@pytest.mark.parametrize(("kind", "case"), NET_CASES)
def test_network_gradients_equal_stored_ones(kind: type[nn.Module], case: Case) -> None:
    torch.manual_seed(0)
    network = case.build().double()
    switches = [m for m in network.modules() if isinstance(m, BackpropSwitch)]
    inputs, context = case.inputs(), case.extras()

    def step(net: nn.Module) -> Tensor:
        torch.manual_seed(0)  # for networks that draw
        outputs = net(*inputs, **context)
        return sum((o**2).sum() for o in as_tuple(outputs))  # type: ignore

    for mode in {mode for switch in switches for mode in switch.backprop_modes} - {"store"}:
        if not all(mode in switch.backprop_modes for switch in switches):
            continue
        stored = set_backprop(copy.deepcopy(network), "store")
        other = set_backprop(copy.deepcopy(network), mode)
        assert gradient_error(other, stored, step) < GRADIENT[torch.float64]


@pytest.mark.parametrize(("kind", "case"), NET_CASES)
def test_networks_evaluate_to_one_tensor_the_same_with_and_without_gradients(kind: type[nn.Module], case: Case) -> None:
    torch.manual_seed(0)
    network = case.build().double().eval()
    inputs, context = case.inputs(), case.extras()
    with torch.inference_mode():
        expected = network(*inputs, **context)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(network(*inputs, **context), expected)
