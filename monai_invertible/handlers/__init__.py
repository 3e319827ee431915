"""Ignite handlers."""

from __future__ import annotations

from .memory_handler import MemoryHandler

__all__ = ["MemoryHandler"]
