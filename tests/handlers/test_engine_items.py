"""An engine's batch and output, put together item by item."""

from __future__ import annotations

import pytest
import torch
from ignite.engine import Engine
from monai.data.utils import decollate_batch

from monai_invertible.handlers.engine_items import engine_items

BATCH = {"name": ["a", "b"], "label": torch.tensor([[1.0], [2.0]]), "label_path": ["x", "y"]}
OUTPUT = {"pred": torch.tensor([[5.0], [6.0]]), "label": torch.tensor([[3.0], [4.0]]), "none": None}


@pytest.mark.parametrize("decollated", [True, False])
def test_the_output_comes_after_the_batch(decollated: bool) -> None:
    """Postprocessing changes the output's entries, not those of the batch."""
    engine = Engine(lambda engine, batch: None)
    engine.state.batch = decollate_batch(BATCH) if decollated else BATCH
    engine.state.output = decollate_batch(OUTPUT) if decollated else OUTPUT
    items = list(engine_items(engine))
    assert [item["name"] for item in items] == ["a", "b"] and [item["label_path"] for item in items] == ["x", "y"]
    assert [item["pred"].tolist() for item in items] == [[5.0], [6.0]]
    assert [item["label"].tolist() for item in items] == [[3.0], [4.0]]
    assert all(item["none"] is None for item in items)
