"""What MONAI's trainers and evaluators need in addition."""

from __future__ import annotations

from monai_invertible.engines.prepare_batch import PrepareBatchKspace
from monai_invertible.engines.show_cause_last import show_cause_last

__all__ = ["PrepareBatchKspace", "show_cause_last"]
