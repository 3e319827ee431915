"""Number formats: what they do to a network and to its products."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_invertible.numerics import PRECISIONS, in_precision
from monai_invertible.numerics.precision import round_mantissa


def test_mantissa_of_ten_bits() -> None:
    eps = 2.0**-10
    x = torch.tensor([1.0, 1 + eps, 1 + eps / 2, 1 + eps / 2.1, -1 - eps / 2, 3e38, 0.0, 1e-30])
    y = round_mantissa(x)
    assert y[:5].tolist() == [1.0, 1 + eps, 1 + eps, 1.0, -1 - eps]
    assert torch.allclose(y, x, rtol=eps / 2, atol=0)
    assert not (y.view(torch.int32) & 0x1FFF).any()


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(3, 4, 3), nn.Linear(8, 5)], ids=str)
def test_tensor_cores_round_factors_and_nothing_else(layer: nn.Module) -> None:
    x, weight = torch.randn(2, 3, 8, 8, requires_grad=True), layer.weight
    assert isinstance(weight, torch.Tensor)
    with in_precision(layer, "tf32"):
        y = layer(x)
        (found,) = torch.autograd.grad(y.sum(), x)
    before = weight.detach().clone()
    weight.data = round_mantissa(before)
    assert torch.allclose(y, layer(round_mantissa(x)), atol=1e-6)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    assert torch.allclose(found, gradient, atol=1e-6)
    weight.data = before
    assert not torch.allclose(y, layer(x), atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_inputs_follow_the_parameters(precision: str) -> None:
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.linear = nn.Embedding(3, 4), nn.Linear(4, 2)

        def forward(self, index: torch.Tensor, *, x: torch.Tensor) -> torch.Tensor:
            return self.linear(self.table(index) + x)

    network = Embedded()
    with in_precision(network, precision):
        y = network(torch.tensor([0, 2]), x=torch.randn(2, 4))
    assert y.dtype == {"float64": torch.float64}.get(precision, torch.bfloat16 if "b" in precision else torch.float32)
    assert network.linear.weight.dtype == {"float64": torch.float64, "bfloat16": torch.bfloat16}.get(
        precision, torch.float32
    )
    assert not network._forward_pre_hooks


def test_none_changes_nothing_and_others_are_refused() -> None:
    layer, x = nn.Linear(2, 2).half(), torch.ones(1, 2).half()
    with in_precision(layer, None):
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    with pytest.raises(ValueError, match="precision must be one of .*, got 'fp8'"), in_precision(layer, "fp8"):
        pass
