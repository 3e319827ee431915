"""Memory of a training step: measure living bytes, estimate a step without running it."""

from __future__ import annotations

from .live_bytes import LiveBytes, PhaseBytes

__all__ = ["LiveBytes", "PhaseBytes"]
