"""Memory of a training step: measure living bytes, estimate a step without running it."""

from __future__ import annotations

from .estimate import estimate_training_step
from .live_bytes import LiveBytes, PhaseBytes
from .process_memory import process_peak_bytes, reset_process_peak
from .report import MemoryReport

__all__ = [
    "LiveBytes",
    "MemoryReport",
    "PhaseBytes",
    "estimate_training_step",
    "process_peak_bytes",
    "reset_process_peak",
]
