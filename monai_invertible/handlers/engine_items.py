"""The items of an engine's current batch, with the output of the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from monai.data.utils import decollate_batch

__all__ = ["engine_items"]


def engine_items(engine: Any) -> Iterator[dict[str, Any]]:
    """Yield one dictionary an item: the batch's keys, then those of the output ("image", "label", "pred"), without
    batch dimension.

    Works with MONAI's engines whether they decollate (their default) or not. A value that the engine has not (no
    label) is None.
    """
    batch, output = engine.state.batch, engine.state.output
    batch = batch if isinstance(batch, list) else decollate_batch(batch, detach=True)
    output = output if isinstance(output, list) else decollate_batch(output, detach=True)
    for inputs, outputs in zip(batch, output, strict=True):
        yield {**inputs, **outputs}
