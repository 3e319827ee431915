"""Ignite handlers."""

from __future__ import annotations

from .best_checkpoint_saver import BestCheckpointSaver
from .checkpoint_reader import CheckpointReader
from .fastmri_metric_handler import FastMRIMetricHandler
from .finite_loss_handler import FiniteLossHandler
from .memory_handler import MemoryHandler
from .progress_handler import ProgressHandler
from .reconstruction_saver import ReconstructionSaver
from .resume_checkpoint_saver import ResumeCheckpointSaver
from .score_table_saver import ScoreTableSaver

__all__ = [
    "BestCheckpointSaver",
    "CheckpointReader",
    "FastMRIMetricHandler",
    "FiniteLossHandler",
    "MemoryHandler",
    "ProgressHandler",
    "ReconstructionSaver",
    "ResumeCheckpointSaver",
    "ScoreTableSaver",
]
