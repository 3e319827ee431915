"""The losses of an engine's current batch."""

from __future__ import annotations

from typing import Any

__all__ = ["engine_losses"]


def engine_losses(engine: Any) -> list[float]:
    """The loss of each item of the output, for MONAI's engines that decollate (their default); of the batch for others;
    none if the output has none."""
    output = engine.state.output
    items = output if isinstance(output, list) else [output]
    return [float(item["loss"]) for item in items if isinstance(item, dict) and "loss" in item]
