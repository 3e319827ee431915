"""Ignite handlers."""

from __future__ import annotations

from .best_checkpoint_saver import BestCheckpointSaver
from .fastmri_metric_handler import FastMRIMetricHandler
from .finite_loss_handler import FiniteLossHandler
from .memory_handler import MemoryHandler
from .newest_checkpoint import newest_checkpoint
from .progress_handler import ProgressHandler
from .reconstruction_saver import ReconstructionSaver

__all__ = [
    "BestCheckpointSaver",
    "FastMRIMetricHandler",
    "FiniteLossHandler",
    "MemoryHandler",
    "ProgressHandler",
    "ReconstructionSaver",
    "newest_checkpoint",
]
