"""The engine: the contract of an invertible module, and the chain that trains without stored activations."""

from monai_invertible.autograd.backprop import BackpropSwitch, set_backprop
from monai_invertible.autograd.drift import DriftGuard, StepDrift, read_drift, set_drift_guard, trace_drift
from monai_invertible.autograd.module import Composition, Inverse, InvertibleModule, State, Step
from monai_invertible.autograd.sequential import InvertibleSequential

__all__ = [
    "BackpropSwitch",
    "Composition",
    "DriftGuard",
    "Inverse",
    "InvertibleModule",
    "InvertibleSequential",
    "State",
    "Step",
    "StepDrift",
    "read_drift",
    "set_backprop",
    "set_drift_guard",
    "trace_drift",
]
