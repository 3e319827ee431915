"""Invertible layers as a user writes them: a forward and an inverse, and no thought about the engine."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from monai_invertible.autograd import InvertibleModule

__all__ = ["Crossed", "Moved", "Scaled", "StackMoved"]


class Moved(InvertibleModule):
    """The last channels of the last tensor moved by a function of the first ones."""

    def __init__(self, net: nn.Module, first: int) -> None:
        super().__init__()
        self.net = net
        self.first = first

    def forward(self, *state: Tensor, **context: Any) -> Any:
        *rest, x = state
        a, b = x[:, : self.first], x[:, self.first :]
        y = torch.cat([a, b + self.net(a)], 1)
        return (*rest, y) if rest else y

    def inverse(self, *state: Tensor, **context: Any) -> Any:
        *rest, y = state
        a, b = y[:, : self.first], y[:, self.first :]
        x = torch.cat([a, b - self.net(a)], 1)
        return (*rest, x) if rest else x


class Crossed(InvertibleModule):
    """A coupling of two sides in one layer, whose inverse evaluates its two branches in the other order."""

    def __init__(self, f: nn.Module, g: nn.Module, first: int) -> None:
        super().__init__()
        self.f = f
        self.g = g
        self.first = first

    def forward(self, *state: Tensor, **context: Any) -> Any:
        *rest, x = state
        a = x[:, : self.first] + self.f(x[:, self.first :])
        b = x[:, self.first :] + self.g(a)
        y = torch.cat([a, b], 1)
        return (*rest, y) if rest else y

    def inverse(self, *state: Tensor, **context: Any) -> Any:
        *rest, y = state
        b = y[:, self.first :] - self.g(y[:, : self.first])
        a = y[:, : self.first] - self.f(b)
        x = torch.cat([a, b], 1)
        return (*rest, x) if rest else x


class Scaled(InvertibleModule):
    """Every channel times a learned positive number; context that it names enters as well."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.linspace(-0.3, 0.4, channels))

    def factor(self, x: Tensor, time: Tensor | None) -> Tensor:
        factor = self.logarithm.exp().view(-1, *(1,) * (x.ndim - 2))
        return factor if time is None else factor * torch.exp(0.1 * time)

    def forward(self, *state: Tensor, time: Tensor | None = None, **context: Any) -> Any:
        *rest, x = state
        y = x * self.factor(x, time).to(x.dtype)
        return (*rest, y) if rest else y

    def inverse(self, *state: Tensor, time: Tensor | None = None, **context: Any) -> Any:
        *rest, y = state
        x = y / self.factor(y, time).to(y.dtype)
        return (*rest, x) if rest else x


class StackMoved(InvertibleModule):
    """The last tensor moved by a function of the one before it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, *state: Tensor, **context: Any) -> Any:
        return (*state[:-1], state[-1] + self.net(state[-2]))

    def inverse(self, *state: Tensor, **context: Any) -> Any:
        return (*state[:-1], state[-1] - self.net(state[-2]))
