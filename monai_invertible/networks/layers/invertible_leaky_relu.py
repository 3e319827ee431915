"""The leaky ReLU as an invertible layer.

Hascoet et al., Layer-Wise Invertibility for Extreme Memory Cost Reduction, 2019, arXiv 1910.11127, section 3.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from monai_invertible.autograd.module import InvertibleModule, State

__all__ = ["InvertibleLeakyReLU"]


class InvertibleLeakyReLU(InvertibleModule):
    r"""Negative values times a slope.

    ``forward``: :math:`y = x` where :math:`x > 0`, else :math:`s x`.
    ``inverse``: :math:`x = y` where :math:`y > 0`, else :math:`y / s`.

    In a chain: saves nothing, recomputes itself. Error: one rounding; but the error that it is given is divided by s
    where the value is negative. For normally distributed values the ratio of signal to noise falls in the inverse by
    :math:`4 / ((1 + s^2)(1 + s^{-2}))`, to 0.15 for s = 0.2: deep chains of it need a slope near one, or couplings
    around short ones.

    Args:
        negative_slope: s, above 0 and at most 1, as in PyTorch (the paper's equation 28 has 1 / s for it, its figures
            have s).

    Shapes: any; of a state of several tensors the last.

    Raises:
        ValueError: a slope out of its range.
    """

    def __init__(self, negative_slope: float = 0.2) -> None:
        super().__init__()
        if not 0 < negative_slope <= 1:
            raise ValueError(
                f"InvertibleLeakyReLU: negative_slope must be above 0 and at most 1, got {negative_slope}. A slope of "
                "0 has no inverse; use for example 0.2."
            )
        self.negative_slope = negative_slope

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Activate."""
        *rest, x = state
        y = F.leaky_relu(x, self.negative_slope)
        return (*rest, y) if rest else y

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """Undo."""
        *rest, y = state
        x = F.leaky_relu(y, 1 / self.negative_slope)
        return (*rest, x) if rest else x

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"
