"""Inversion error on maps whose error is known."""

from __future__ import annotations

import pytest
import torch

from monai_invertible.numerics import inversion_error


class Scale:
    """x -> factor x; its inverse is off by ``slip``."""

    def __init__(self, slip: float) -> None:
        self.slip = slip

    def forward(self, *state, factor=2.0):
        y = tuple(x * factor for x in state)
        return y[0] if len(y) == 1 else y

    def inverse(self, *state, factor=2.0):
        x = tuple(y / factor * (1 + self.slip) for y in state)
        return x[0] if len(x) == 1 else x


@pytest.mark.parametrize("slip", [0.0, 1e-3, -0.5])
@pytest.mark.parametrize("tensors", [1, 3])
def test_relative_error_is_the_slip(slip, tensors):
    state = [torch.randn(4, 5, dtype=torch.float64) for _ in range(tensors)]
    assert inversion_error(Scale(slip), *state, factor=4.0) == pytest.approx(abs(slip), rel=1e-12, abs=1e-15)


def test_error_of_one_tensor_is_relative_to_the_whole_state():
    class SecondLost(Scale):
        def inverse(self, a, b, factor=2.0):
            return a / factor, torch.zeros_like(b)

    assert inversion_error(SecondLost(0), torch.full((1,), 4.0), torch.full((1,), 3.0)) == pytest.approx(3 / 5)


def test_in_place_module_cannot_fool_it():
    class InPlace:
        def forward(self, x):
            return x.mul_(2)

        def inverse(self, y):
            return y

    assert inversion_error(InPlace(), torch.ones(3)) == pytest.approx(1.0)


def test_zero_input_gives_the_absolute_error():
    assert inversion_error(Scale(0.1), torch.zeros(3)) == 0.0


def test_wrong_shape_is_refused():
    class Longer(Scale):
        def inverse(self, y, factor=2.0):
            return torch.cat([y, y])

    with pytest.raises(ValueError, match=r"Longer.inverse must return tensors of shapes \[\(3,\)\], got \[\(6,\)\]"):
        inversion_error(Longer(0), torch.ones(3))
