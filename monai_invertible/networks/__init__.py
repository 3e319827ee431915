"""Layers (invertible maps), blocks (what is not invertible) and nets (architectures)."""

from __future__ import annotations

from .blocks import *  # noqa: F403
from .nets import *  # noqa: F403
