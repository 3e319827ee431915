"""Invertible networks, layers and losses for MONAI: training memory that does not grow with depth."""

from __future__ import annotations

from monai_invertible import (
    autograd,
    data,
    engines,
    handlers,
    losses,
    memory,
    metrics,
    networks,
    numerics,
    operators,
    transforms,
)
from monai_invertible.autograd import (
    Inverse,
    InvertibleModule,
    InvertibleSequential,
    read_drift,
    set_backprop,
    set_drift_guard,
)

__version__ = "0.1.0"

__all__ = [
    "Inverse",
    "InvertibleModule",
    "InvertibleSequential",
    "__version__",
    "autograd",
    "data",
    "engines",
    "handlers",
    "losses",
    "memory",
    "metrics",
    "networks",
    "numerics",
    "operators",
    "read_drift",
    "set_backprop",
    "set_drift_guard",
    "transforms",
]
