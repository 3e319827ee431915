"""Round-trip tolerances: how well the inverse undoes the forward, relative to the state; numerics is part of the
interface.

One layer, ``max |inverse(forward(x)) - x| / max |x|``. The figures are what the arithmetic gives, with a factor of
about four of room: an additive update rounds its sum once, an orthogonal product once per term, and the inverse of a
mixing matrix loses what its condition number says (five at c = 1.5).
"""

from __future__ import annotations

import torch

from monai_invertible.autograd import Inverse, InvertibleModule, InvertibleSequential
from monai_invertible.networks.layers import (
    AdditiveCoupling,
    BatchPooling,
    ChannelPooling,
    ChannelSplit,
    CheckerboardAttention,
    GradientUpdate,
    InvertibleBatchNorm,
    InvertibleConvolution,
    InvertibleLeakyReLU,
    InvertibleUNetCore,
    OrthogonalConvolution,
    OrthogonalCoupling,
    OrthogonalDownsample,
    ResidualCoupling,
    SpaceToChannel,
    Swap,
)

ROUND_TRIP: dict[type[InvertibleModule], dict[torch.dtype, float]] = {
    AdditiveCoupling: {torch.float64: 1e-15, torch.float32: 5e-7, torch.bfloat16: 2e-2},
    BatchPooling: {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 0.0},
    ChannelPooling: {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 0.0},
    ChannelSplit: {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 0.0},
    CheckerboardAttention: {torch.float64: 1e-14, torch.float32: 4e-6, torch.bfloat16: 4e-2},
    GradientUpdate: {torch.float64: 1e-15, torch.float32: 5e-7, torch.bfloat16: 2e-2},
    Inverse: {torch.float64: 2e-15, torch.float32: 1e-6, torch.bfloat16: 3e-2},
    InvertibleSequential: {torch.float64: 2e-15, torch.float32: 1e-6, torch.bfloat16: 3e-2},
    InvertibleBatchNorm: {torch.float64: 3e-15, torch.float32: 1e-6, torch.bfloat16: 3e-2},
    InvertibleConvolution: {torch.float64: 1e-15, torch.float32: 5e-7, torch.bfloat16: 2e-2},
    InvertibleLeakyReLU: {torch.float64: 3e-16, torch.float32: 2e-7, torch.bfloat16: 1e-2},
    InvertibleUNetCore: {torch.float64: 4e-15, torch.float32: 2e-6, torch.bfloat16: 6e-2},
    OrthogonalConvolution: {torch.float64: 2e-15, torch.float32: 1e-6, torch.bfloat16: 2e-2},
    OrthogonalCoupling: {torch.float64: 3e-15, torch.float32: 2e-6, torch.bfloat16: 4e-2},
    OrthogonalDownsample: {torch.float64: 2e-15, torch.float32: 1e-6, torch.bfloat16: 2e-2},
    ResidualCoupling: {torch.float64: 1e-15, torch.float32: 5e-7, torch.bfloat16: 2e-2},
    SpaceToChannel: {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 0.0},
    Swap: {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 0.0},
}

# Gradients of a chain against the same chain stored, max |a - b| / max |b| over each tensor's network.
GRADIENT = {torch.float64: 1e-10, torch.float32: 1e-4}
