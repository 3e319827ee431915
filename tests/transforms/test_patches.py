"""Patches with enough brain: all of them, and no others."""

from __future__ import annotations

import itertools

import pytest
import torch

from monai_invertible.data import TensorStatistics
from monai_invertible.transforms import PatchWeightd, RandWeightedPatchd, StandardizeTensord

ROI = (4, 3, 2)


@pytest.fixture
def item() -> dict[str, torch.Tensor]:
    mask = torch.zeros(1, 9, 8, 7)
    mask[:, 2:5, 5:7, 1] = 1
    return {"mask": mask, "x": torch.arange(504.0).view(1, 9, 8, 7), "y": -torch.arange(504.0).view(1, 9, 8, 7)}


@pytest.mark.parametrize("share", [0.01, 0.2])
def test_every_patch_with_enough_brain_and_no_other(item: dict[str, torch.Tensor], share: float) -> None:
    weighted = PatchWeightd("mask", ROI, share)(item)
    allowed = set()
    for start in itertools.product(*(range(n - r + 1) for n, r in zip(item["mask"].shape[1:], ROI, strict=True))):
        patch = item["mask"][(slice(None), *(slice(s, s + r) for s, r in zip(start, ROI, strict=True)))]
        if patch.mean() >= share - 1e-9:
            allowed.add(float(item["x"][(0, *start)]))
    crop = RandWeightedPatchd(("x", "y"), ROI)
    crop.set_random_state(0)
    found = set()
    for _ in range(1000):
        cut = crop(weighted)
        assert cut["x"].shape == (1, *ROI) and torch.equal(cut["x"], -cut["y"])
        found.add(float(cut["x"][0, 0, 0, 0]))
    assert found == allowed and weighted["weight"].sum() == len(allowed)


def test_errors(item: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"at least as large as a patch, \(10, 3, 2\), got \(9, 8, 7\)"):
        PatchWeightd("mask", (10, 3, 2))(item)
    with pytest.raises(ValueError, match="share of at least 0.9 in the mask, got 0.25"):
        PatchWeightd("mask", ROI, 0.9)(item)


def test_standardise_and_restore() -> None:
    statistics = TensorStatistics([1.0, 2.0], [2.0, 4.0])
    item = {"x": torch.tensor([[3.0], [6.0]]), "name": "a"}
    standard = StandardizeTensord(["x", "y"], statistics, allow_missing_keys=True)(item)
    assert standard["x"].tolist() == [[1.0], [1.0]] and item["x"].tolist() == [[3.0], [6.0]]
    assert torch.equal(StandardizeTensord("x", statistics, restore=True)(standard)["x"], item["x"])
