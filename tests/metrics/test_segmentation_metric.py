"""Dice and Hausdorff distance against their definitions, in mm, with every case of empty classes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from monai_invertible.metrics import SegmentationMetric, region_masks, volume_key

CLASSES = {"TC": [1, 4], "WT": [1, 2, 4], "ET": [4]}


def box(start: int, stop: int, value: int = 4) -> torch.Tensor:
    """A label map (1, 12, 10, 8) with a box of one value along the first axis."""
    label = torch.zeros(1, 12, 10, 8)
    label[:, start:stop, 3:6, 2:5] = value
    return label


def score(metric: str, *pairs: tuple[torch.Tensor, torch.Tensor], spacing: list[float] | None = None) -> torch.Tensor:
    function = SegmentationMetric(metric, CLASSES)
    for index, (prediction, truth) in enumerate(pairs):
        function(prediction, truth, subject=f"subject {index}", spacing=spacing)
    values = function.get_buffer()
    assert values is not None and function.aggregate() == pytest.approx(values.mean().item())
    return values


def test_classes_are_sets_of_labels() -> None:
    label = torch.tensor([0, 1, 2, 4])[None]
    assert region_masks(label, CLASSES).int().tolist() == [[0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 1]]


def test_dice() -> None:
    assert score("dice", (box(2, 6), box(4, 8))).tolist() == [[0.5, 0.5, 0.5]]
    assert score("dice", (box(2, 6, 1), box(2, 6))).tolist() == [[1, 1, 0]]  # the core found, as another tissue


@pytest.mark.parametrize("metric", ["hd100", "hd95"])
def test_distance_is_in_mm(metric: str) -> None:
    """A box moved by two voxels of 3 mm; one of its surfaces is six mm away."""
    assert score(metric, (box(2, 6), box(4, 8)), spacing=[3, 1, 1]).tolist() == [[6.0] * 3]
    assert score(metric, (box(2, 6), box(4, 8))).tolist() == [[2.0] * 3]


def test_percentile_leaves_out_an_outlier() -> None:
    prediction = box(2, 8)
    prediction[0, 11, 4, 3] = 4
    assert score("hd100", (prediction, box(2, 8))).unique().tolist() == [4.0]
    assert score("hd95", (prediction, box(2, 8))).unique().tolist() == [0.0]


def test_distance_against_every_pair_of_voxels() -> None:
    """The slow twin: the largest of all smallest distances between two sets."""
    generator = torch.Generator().manual_seed(0)
    a, b = (4.0 * (torch.rand(1, 6, 7, 5, generator=generator) > 0.9) for _ in range(2))
    spacing = np.array([1.0, 2.0, 0.5])
    points = [torch.argwhere(x[0]).numpy() * spacing for x in (a, b)]
    distances = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    wanted = max(distances.min(0).max(), distances.min(1).max())
    assert score("hd100", (a, b), spacing=spacing.tolist())[0, 0] == pytest.approx(wanted)


def test_empty_classes() -> None:
    """The rules of the BraTS challenge: no subject drops out, and nothing is NaN."""
    nothing, diagonal = torch.zeros_like(box(0, 1)), math.hypot(12 * 2, 10, 8)
    pairs = [(nothing, nothing), (nothing, box(2, 6)), (box(2, 6), nothing)]
    order = np.argsort([volume_key(f"subject {index}") for index in range(3)])
    dice, distance = (score(metric, *pairs, spacing=[2, 1, 1])[:, 0] for metric in ("dice", "hd95"))
    assert dice.tolist() == np.array([1.0, 0.0, 0.0])[order].tolist()
    assert distance.tolist() == pytest.approx(np.array([0.0, diagonal, diagonal])[order].tolist())


def test_a_repeated_subject_counts_once() -> None:
    function = SegmentationMetric("dice", CLASSES)
    for name in ("a", "b", "a"):
        function(box(2, 6), box(2, 6) if name == "a" else box(4, 8), subject=name)
    assert function.aggregate() == pytest.approx(0.75)


def test_errors() -> None:
    for metric in ("hd", "hd0", "hd101", "iou"):
        with pytest.raises(ValueError, match=f'SegmentationMetric: metric must be "dice" or .* got {metric!r}'):
            SegmentationMetric(metric, CLASSES)
    with pytest.raises(ValueError, match="SegmentationMetric: there must be an image before its scores, got none"):
        SegmentationMetric("dice", CLASSES).aggregate()
    with pytest.raises(ValueError, match=r"prediction and truth of x must be .* got \(1, 6, 10, 8\) and .*Invertd"):
        SegmentationMetric("dice", CLASSES)(box(0, 1)[:, :6], box(0, 1), subject="x")
