"""A number for the name of a subject or volume, so that processes can exchange scores as tensors."""

from __future__ import annotations

import hashlib

__all__ = ["volume_key"]


def volume_key(name: str) -> int:
    """The number that stands for a name in tensors, exact in float64; rows of a score are in its order."""
    return int.from_bytes(hashlib.sha256(str(name).encode()).digest()[:6], "big")
