"""Constant for some epochs, then down to almost nothing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_invertible.engines import linear_decay


def test_the_papers_two_hundred_epochs() -> None:
    factor = linear_decay(100, 100)
    assert [factor(epoch) for epoch in (0, 99)] == [1.0, 1.0]
    assert factor(100) == pytest.approx(100 / 101)
    assert factor(150) == pytest.approx(50 / 101)
    assert factor(199) == pytest.approx(1 / 101) and factor(199) > 0
    assert factor(200) == factor(1000) == 0


def test_without_decay_or_without_constant() -> None:
    assert [linear_decay(20, 0)(epoch) for epoch in (0, 19)] == [1.0, 1.0]
    assert [linear_decay(0, 3)(epoch) for epoch in range(3)] == pytest.approx([0.75, 0.5, 0.25])


def test_as_a_schedule_that_is_resumed() -> None:
    def schedule() -> torch.optim.lr_scheduler.LambdaLR:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
        return torch.optim.lr_scheduler.LambdaLR(optimizer, linear_decay(1, 3))

    first, rates = schedule(), []
    for _ in range(4):
        rates.append(first.get_last_lr()[0])
        first.optimizer.step()
        first.step()
    assert rates == pytest.approx([0.5, 0.375, 0.25, 0.125])
    again = schedule()
    again.load_state_dict(first.state_dict())
    assert again.get_last_lr() == [0.0]


def test_negative_epochs() -> None:
    with pytest.raises(ValueError, match="linear_decay: epochs must not be negative, got 100 and -1. Use 0 or more"):
        linear_decay(100, -1)
