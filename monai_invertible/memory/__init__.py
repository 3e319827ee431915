"""Memory of a training step: measure living bytes, estimate a step without running it, plan for a budget."""

from __future__ import annotations

from monai_invertible.memory.estimate import estimate_training_step
from monai_invertible.memory.largest_patch import largest_patch
from monai_invertible.memory.live_bytes import LiveBytes, PhaseBytes
from monai_invertible.memory.process_memory import process_peak_bytes, reset_process_peak
from monai_invertible.memory.report import MemoryReport

__all__ = [
    "LiveBytes",
    "MemoryReport",
    "PhaseBytes",
    "estimate_training_step",
    "largest_patch",
    "process_peak_bytes",
    "reset_process_peak",
]
