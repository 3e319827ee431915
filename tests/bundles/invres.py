"""The two segmentation bundles at the smallest size, for the tests of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_invertible.data import brats_datalist, iseg_datalist
from tests.bundles.helper import ROOT

TINY: dict[str, Any] = {
    "network_def__channels": [4, 8],
    "network_def__strides": [2],
    "roi_size": [16, 16, 16],
    "overlap": 0.0,
    "sw_batch_size": 8,
}
TRAINING: dict[str, Any] = {**TINY, "folds": 4, "epochs": 2, "batch_size": 2, "patches_per_volume": 2}


@dataclass(frozen=True)
class Invres:
    """A bundle, and what differs from the other."""

    name: str
    data: Path
    classes: dict[str, list[int]]
    labels: set[int]
    modality: str  # the first one's path, of a subject
    label: str
    iterations = 3  # an epoch: 3 subjects, 2 patches each, in batches of 2

    @property
    def bundle(self) -> Path:
        return ROOT / "bundles" / f"{self.name}_invres_segmentation"

    @property
    def tiny(self) -> dict[str, Any]:
        return {**TINY, "spacing": [5.0] * 3 if self.name == "brats" else [16 / 3] * 3}

    @property
    def training(self) -> dict[str, Any]:
        deform = {"deform_prob": 1.0} if self.name == "brats" else {}
        return {**TRAINING, **self.tiny, **deform, "dataset_dir": self.data}

    def items(self, section: str = "all", folder: Path | None = None, fold: int = 0) -> list[dict[str, Any]]:
        listing = {"brats": brats_datalist, "iseg": iseg_datalist}[self.name]
        return listing(folder or self.data, section, fold=fold, folds=4)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """The Dice score of two masks, by numpy alone."""
    return 2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0
