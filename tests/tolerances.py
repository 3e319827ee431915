"""Round-trip tolerances: how well the inverse undoes the forward, relative to the state; numerics is part of the
interface.

One layer, ``max |inverse(forward(x)) - x| / max |x|``. The figures are what the arithmetic gives, with a factor of
about four of room: an additive update rounds its sum once, an orthogonal product once per term.
"""

from __future__ import annotations

import torch

from monai_invertible.autograd import Inverse, InvertibleModule, InvertibleSequential
from monai_invertible.networks.layers import (
    AdditiveCoupling,
    ChannelSplit,
    GradientUpdate,
    OrthogonalConvolution,
    OrthogonalCoupling,
    OrthogonalDownsample,
    ResidualCoupling,
    SpaceToChannel,
)

ROUND_TRIP: dict[type[InvertibleModule], dict[torch.dtype, float]] = {
    AdditiveCoupling: {torch.float64: 1e-15, torch.float32: 5e-7, torch.bfloat16: 2e-2},
    ChannelSplit: {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 0.0},
    GradientUpdate: {torch.float64: 1e-15, torch.float32: 5e-7, torch.bfloat16: 2e-2},
    Inverse: {torch.float64: 2e-15, torch.float32: 1e-6, torch.bfloat16: 3e-2},
    InvertibleSequential: {torch.float64: 2e-15, torch.float32: 1e-6, torch.bfloat16: 3e-2},
    OrthogonalConvolution: {torch.float64: 2e-15, torch.float32: 1e-6, torch.bfloat16: 2e-2},
    OrthogonalCoupling: {torch.float64: 3e-15, torch.float32: 2e-6, torch.bfloat16: 4e-2},
    OrthogonalDownsample: {torch.float64: 2e-15, torch.float32: 1e-6, torch.bfloat16: 2e-2},
    ResidualCoupling: {torch.float64: 1e-15, torch.float32: 5e-7, torch.bfloat16: 2e-2},
    SpaceToChannel: {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 0.0},
}

# Gradients of a chain against the same chain stored, max |a - b| / max |b| over each tensor's network.
GRADIENT = {torch.float64: 1e-10, torch.float32: 1e-4}
