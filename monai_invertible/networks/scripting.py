"""TorchScript for networks that a script compiler cannot read (states and contexts of any length): a trace instead.

``torch.jit.script`` asks a module for a scriptable stand-in (``__prepare_scriptable__``), and gets the trace; so
``python -m monai.bundle ckpt_export`` works unchanged. ``torch.export`` and ONNX read the networks themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ScriptedByTrace"]


class ScriptedByTrace(nn.Module):
    """A network whose TorchScript is the trace of an evaluation on :meth:`example_input`, for other sizes too."""

    def example_input(self) -> Tensor | tuple[Tensor, Tensor]:
        """What to trace with; the script takes as many inputs, one or two."""
        raise NotImplementedError(f"{type(self).__name__}: define example_input() to be scripted.")

    def __prepare_scriptable__(self) -> nn.Module:
        example = self.example_input()
        with torch.no_grad():
            trace: Any = torch.jit.trace(self, example, check_trace=False)
        return _Traced(trace) if isinstance(example, Tensor) else _TracedPair(trace)


class _Traced(nn.Module):
    def __init__(self, trace: nn.Module) -> None:
        super().__init__()
        self.trace = trace

    def forward(self, x: Tensor) -> Tensor:
        return self.trace(x)


class _TracedPair(_Traced):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return self.trace(x, y)
