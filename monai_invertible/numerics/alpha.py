r"""How much of the signal-to-noise ratio the inverse of a layer loses: formulas, and the measurement they stand for.

Walking back, a layer turns an output :math:`y + e_y` into an input :math:`x + e_x`. With :math:`SNR = E x^2 / E e^2`,

.. math:: \alpha = SNR_{in} / SNR_{out} = \frac{E x^2}{E y^2} \cdot \frac{E e_y^2}{E e_x^2}.

It is 1 for a layer that scales everything alike, and small for one that makes a part of its input small: the inverse
enlarges that part, with its noise. Along a chain it multiplies, so it decides how deep a chain can be inverted.

Hascoet et al., Layer-Wise Invertibility for Extreme Memory Cost Reduction of CNN Training, 2019, arXiv 1910.11127,
equations 21 to 31. The noise is white, independent of the signal, and small beside it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from monai_invertible.autograd.module import as_tuple

__all__ = ["batch_norm_alpha", "leaky_relu_alpha", "measure_alpha"]


def leaky_relu_alpha(negative_slope: float, *, share: float = 0.5, power: float = 0.5) -> float:
    r""":math:`\alpha = 1 / ((1 - q + q s^2)(1 - p + p s^{-2}))` of a leaky ReLU, q and p being 1/2 around zero.

    The fraction q of the signal's power is multiplied by :math:`s^2`; on the way back, the fraction p of the noise's by
    :math:`s^{-2}`. An input distributed evenly around zero gives the paper's
    :math:`4 / ((1 + s^2)(1 + s^{-2}))`, the same for s and 1 / s: it does not matter that its equation 28 divides by
    what its figures multiply by. Behind other leaky ReLUs the positive values are fewer and larger, and more is lost.

    Args:
        negative_slope: s, above 0.
        share: p, the fraction of the values that are negative.
        power: q, their fraction of the sum of squares.

    Raises:
        ValueError: a slope that is not above 0.
    """
    if not negative_slope > 0:
        raise ValueError(
            f"leaky_relu_alpha: negative_slope must be above 0, got {negative_slope}. Use for example 0.2."
        )
    return 1 / ((1 - power + power * negative_slope**2) * (1 - share + share * negative_slope**-2))


def batch_norm_alpha(
    scale: Tensor,
    *,
    bias: Tensor | float = 0.0,
    mean: Tensor | float = 0.0,
    variance: Tensor | float = 1.0,
    eps: float = 0.0,
) -> float:
    r""":math:`\alpha` of a batch normalisation :math:`y_i = g_i (x_i - \mu_i) / \sqrt{v_i + \epsilon} + \beta_i`.

    .. math:: \alpha = \frac{\sum_i \mu_i^2 + v_i}{\sum_i g_i^2 v_i / (v_i + \epsilon) + \beta_i^2}
              \cdot \frac{c}{\sum_i (v_i + \epsilon) / g_i^2}

    The paper's equations 25g and 26d have lost the square in the last sum (they print
    :math:`\sqrt{v_i + \epsilon} / g_i`) and leave :math:`\epsilon` out of the first denominator. For
    :math:`\mu = \beta = 0, v = 1` it is :math:`1 / (\overline{g^2}\; \overline{g^{-2}})`, and for two channels with
    scales 1 and :math:`\rho` the paper's :math:`4 / ((1 + \rho^2)(1 + \rho^{-2}))`.

    Args:
        scale: g, what the layer multiplies by: for ``InvertibleBatchNorm`` its ``weight.abs() + invertible_eps``.
        bias: :math:`\beta`.
        mean: :math:`\mu`, of the batch.
        variance: v, of the batch, biased.
        eps: :math:`\epsilon`.

    Shapes: ``(C,)``, or one number for all channels.

    Raises:
        ValueError: a scale of zero.
    """
    g, b, m, v = torch.broadcast_tensors(
        *(torch.as_tensor(t, dtype=torch.float64) for t in (scale, bias, mean, variance))
    )
    if (g == 0).any():
        raise ValueError(
            f"batch_norm_alpha: every scale must differ from 0 to be inverted, got 0 in channel "
            f"{int((g == 0).nonzero()[0, 0])}. Add the layer's invertible_eps to it."
        )
    signal = (m.square() + v).sum() / (g.square() * v / (v + eps) + b.square()).sum()
    return float(signal / ((v + eps) / g.square()).mean())


@torch.no_grad()
def measure_alpha(layer: Any, *state: Tensor, noise: float = 1e-5, **context: Any) -> float:
    r"""The :math:`\alpha` of a layer on this input: normally distributed noise is added to its output and inverted.

    Signal and noise are those of the last tensor of the state; the others (the statistics that an
    ``InvertibleBatchNorm`` leaves on the stack) are given to the inverse as they are.

    Args:
        layer: anything with ``forward(*state, **context)`` and ``inverse(*state, **context)``.
        state: its input. Double precision, lest rounding add to the noise.
        noise: standard deviation of the noise.
        context: what both directions read.
    """
    *rest, y = as_tuple(layer.forward(*state, **context))
    x = state[-1]
    error = noise * torch.randn_like(y)
    found = as_tuple(layer.inverse(*rest, y + error, **context))[-1]
    ratios = [s.double().square().mean() / e.double().square().mean() for s, e in ((x, found - x), (y, error))]
    return float(ratios[0] / ratios[1])
