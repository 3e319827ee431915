"""The losses of an engine's current batch."""

from __future__ import annotations

from typing import Any

__all__ = ["engine_losses"]


def engine_losses(engine: Any) -> list[dict[str, float]]:
    """Of each item of the output for MONAI's engines that decollate (their default), of the batch for others: "loss"
    and all other values whose name ends with it ("discriminator_loss"); nothing for items without a "loss"."""
    output = engine.state.output
    items = output if isinstance(output, list) else [output]
    return [
        {name: float(value) for name, value in item.items() if str(name).endswith("loss")}
        for item in items
        if isinstance(item, dict) and "loss" in item
    ]
