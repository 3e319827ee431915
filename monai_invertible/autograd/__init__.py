"""The engine: the contract of an invertible module, and the chain that trains without stored activations.

To read it: ``module`` (the contract), ``sequential`` (the chain), ``recompute`` (the walk back), ``replay`` (what a
second evaluation finds as it was) with ``attributes``, ``random_streams``, ``call_streams`` and ``module_hooks``.
Aside: ``checkpointing``, ``compiled`` and ``repeatable`` (under ``torch.compile``), ``drift`` and ``drift_watch`` (the
guard); ``memory``, ``containers``, ``stream_order``; ``torch_internals`` (all that has no public name in torch).
"""

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
