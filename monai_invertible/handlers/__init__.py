"""Ignite handlers."""

from __future__ import annotations

from monai_invertible.handlers.best_checkpoint_saver import BestCheckpointSaver
from monai_invertible.handlers.checkpoint_reader import CheckpointReader
from monai_invertible.handlers.class_confusion_handler import ClassConfusionHandler
from monai_invertible.handlers.confusion_saver import ConfusionSaver
from monai_invertible.handlers.cycle_handler import CycleHandler
from monai_invertible.handlers.drift_handler import DriftHandler
from monai_invertible.handlers.epoch_seed_handler import EpochSeedHandler
from monai_invertible.handlers.fastmri_metric_handler import FastMRIMetricHandler
from monai_invertible.handlers.finite_loss_handler import FiniteLossHandler
from monai_invertible.handlers.label_color_metric_handler import LabelColorMetricHandler
from monai_invertible.handlers.memory_handler import MemoryHandler
from monai_invertible.handlers.mistake_saver import MistakeSaver
from monai_invertible.handlers.overlay_saver import OverlaySaver
from monai_invertible.handlers.prediction_saver import PredictionSaver
from monai_invertible.handlers.progress_handler import ProgressHandler
from monai_invertible.handlers.reconstruction_saver import ReconstructionSaver
from monai_invertible.handlers.regression_metric_handler import RegressionMetricHandler
from monai_invertible.handlers.resume_checkpoint_saver import ResumeCheckpointSaver
from monai_invertible.handlers.scaler_state import ScalerState
from monai_invertible.handlers.score_table_saver import ScoreTableSaver
from monai_invertible.handlers.segmentation_metric_handler import SegmentationMetricHandler
from monai_invertible.handlers.segmentation_saver import SegmentationSaver
from monai_invertible.handlers.tensor_map_saver import TensorMapSaver
from monai_invertible.handlers.tensor_metric_handler import TensorMetricHandler
from monai_invertible.handlers.translation_metric_handler import TranslationMetricHandler
from monai_invertible.handlers.translation_saver import TranslationSaver
from monai_invertible.handlers.volume_saver import VolumeSaver

__all__ = [
    "BestCheckpointSaver",
    "CheckpointReader",
    "ClassConfusionHandler",
    "ConfusionSaver",
    "CycleHandler",
    "DriftHandler",
    "EpochSeedHandler",
    "FastMRIMetricHandler",
    "FiniteLossHandler",
    "LabelColorMetricHandler",
    "MemoryHandler",
    "MistakeSaver",
    "OverlaySaver",
    "PredictionSaver",
    "ProgressHandler",
    "ReconstructionSaver",
    "RegressionMetricHandler",
    "ResumeCheckpointSaver",
    "ScalerState",
    "ScoreTableSaver",
    "SegmentationMetricHandler",
    "SegmentationSaver",
    "TensorMapSaver",
    "TensorMetricHandler",
    "TranslationMetricHandler",
    "TranslationSaver",
    "VolumeSaver",
]
