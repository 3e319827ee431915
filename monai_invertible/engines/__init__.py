"""What MONAI's trainers and evaluators need in addition."""

from __future__ import annotations

from monai_invertible.engines.prepare_batch import PrepareBatchKspace

__all__ = ["PrepareBatchKspace"]
