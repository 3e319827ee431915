"""Dice and Hausdorff distance of label maps, one value a subject and class, in any order and on any process.

A class is a set of label values; classes may overlap (the whole tumour of BraTS is 1, 2 and 4). With the class's
voxels A in the prediction and B in the truth, and the distance d in mm between surfaces,

    Dice = 2 |A n B| / (|A| + |B|)        HD = max( max_A d(a, B), max_B d(b, A) )

The distance at percentile p takes the p-th percentile in the place of the inner maxima. Both are MONAI's. What they
leave undefined follows the BraTS challenge, so that no subject drops out of a mean: with neither A nor B the Dice is 1
and the distance 0; with only one of them the Dice is 0 and the distance the diagonal of the image.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.meandice import compute_dice

from monai_invertible.metrics.named_scores import NamedScores

__all__ = ["SegmentationMetric", "region_masks"]


def region_masks(label: torch.Tensor, classes: Mapping[str, Sequence[int]]) -> torch.Tensor:
    """(1, \\*spatial) label map -> (classes, \\*spatial) bool; a class is the set of its label values."""
    label = label.as_subclass(torch.Tensor).round()  # a MetaTensor is slow
    return torch.cat([torch.isin(label, torch.tensor(values).to(label)) for values in classes.values()])


class SegmentationMetric(NamedScores):
    """One score of label maps: a value a subject and class.

    ``metric(prediction, truth, subject=..., spacing=...)`` adds a subject; ``get_buffer()`` gives the values
    (subjects, classes), in the order of ``volume_key``; ``aggregate()`` the mean of all; ``reset()`` starts again. In a
    distributed run both gather all processes first; a subject that a sampler has repeated counts once.

    Args:
        metric: "dice", or "hd100", "hd95", ...: the Hausdorff distance in mm at that percentile (100: the maximum).
        classes: name of each class and its label values.

    Raises:
        ValueError: if there is no such metric or shapes do not fit.
    """

    def __init__(self, metric: str, classes: Mapping[str, Sequence[int]]) -> None:
        super().__init__()
        match = re.fullmatch(r"hd(\d+)", metric)
        if metric != "dice" and not (match and 0 < int(match[1]) <= 100):
            raise ValueError(
                f'SegmentationMetric: metric must be "dice" or "hd1" ... "hd100", got {metric!r}. Use "hd95".'
            )
        self.metric = metric
        self.classes = dict(classes)
        self.percentile = int(match[1]) if match else None

    def __call__(
        self, prediction: torch.Tensor, truth: torch.Tensor, subject: str, spacing: Sequence[float] | None = None
    ) -> None:
        """Add a subject.

        Args:
            prediction: label map (1, \\*spatial).
            truth: likewise, on the same voxels.
            subject: its name.
            spacing: size of a voxel in mm; None means 1.
        """
        if prediction.shape != truth.shape or prediction.shape[0] != 1:
            raise ValueError(
                f"SegmentationMetric: prediction and truth of {subject} must be label maps (1, *spatial) on the same "
                f"voxels, got {tuple(prediction.shape)} and {tuple(truth.shape)}. Bring the prediction back into the "
                "geometry of the truth (Invertd)."
            )
        size = [float(length) for length in spacing] if spacing is not None else [1.0] * (truth.ndim - 1)
        masks = (region_masks(x, self.classes) for x in (prediction, truth))
        row = [self._score(a, b, size) for a, b in zip(*masks, strict=True)]
        self.add(subject, torch.tensor(row, dtype=torch.float64))

    def _score(self, a: torch.Tensor, b: torch.Tensor, spacing: Sequence[float]) -> float:
        both, one = bool(a.any() and b.any()), bool(a.any() or b.any())
        if self.metric == "dice":
            return float(compute_dice(a[None, None], b[None, None], ignore_empty=False)) if both else float(not one)
        if not both:
            return float(np.linalg.norm(np.multiply(a.shape, spacing))) if one else 0.0
        options: Any = {"include_background": True, "percentile": self.percentile, "spacing": spacing}
        with warnings.catch_warnings():  # MONAI passes itself an argument that it deprecates
            warnings.filterwarnings("ignore", "monai.metrics.utils get_mask_edges", FutureWarning)
            return float(compute_hausdorff_distance(a[None, None], b[None, None], **options))
