"""Ignite handlers."""

from __future__ import annotations

from .fastmri_metric_handler import FastMRIMetricHandler
from .memory_handler import MemoryHandler
from .reconstruction_saver import ReconstructionSaver

__all__ = ["FastMRIMetricHandler", "MemoryHandler", "ReconstructionSaver"]
