"""Outside the mask the other image, inside the image itself."""

from __future__ import annotations

import torch
from monai.data import MetaTensor

from monai_invertible.transforms import FillBackgroundd


def test_outside_the_mask_alone() -> None:
    mask = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    item = {"x": torch.ones(6, 2, 1, 2), "y": MetaTensor(2 * torch.ones(6, 2, 1, 2)), "mask": mask}
    filled = FillBackgroundd("y")(item)
    assert torch.equal(filled["y"].as_tensor(), (1 + mask).expand(6, -1, -1, -1)) and isinstance(
        filled["y"], MetaTensor
    )
    assert torch.equal(filled["x"], item["x"]) and (item["y"] == 2).all()


def test_without_another_image_nothing_changes() -> None:
    item = {"x": torch.rand(6, 2, 2, 2), "mask": torch.zeros(1, 2, 2, 2)}
    assert torch.equal(FillBackgroundd("x")(item)["x"], item["x"])
    assert torch.equal(FillBackgroundd("x", source_key="z")(item)["x"], item["x"])
