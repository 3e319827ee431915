"""Scores of generated images: MONAI's numbers, by name, by channel, over all batches."""

from __future__ import annotations

import pytest
import torch
from monai.metrics import MMDMetric, MSEMetric, SSIMMetric

from monai_invertible.metrics import RegressionScores, SampleDistance, volume_key


def images(count: int = 3, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, 12, 13, 14, generator=torch.Generator().manual_seed(count + channels))


def test_scores_are_those_of_monai() -> None:
    metric, (prediction, truth) = RegressionScores(SSIMMetric(spatial_dims=3)), (images(3), images(3).flip(0))
    for name, one, other in zip("cab", prediction, truth, strict=True):
        metric(one, other, name)
        metric(one, other, name)  # a distributed sampler repeats items
    wanted = dict(zip("cab", SSIMMetric(spatial_dims=3)(prediction, truth).flatten().tolist(), strict=True))
    order = sorted("abc", key=volume_key)
    assert metric.get_buffer().flatten().tolist() == pytest.approx([wanted[name] for name in order])
    assert float(metric.aggregate()) == pytest.approx(sum(wanted.values()) / 3)


def test_scores_of_channels() -> None:
    metric, (one, other) = RegressionScores(MSEMetric(), channel_wise=True), (images(1, 4)[0], images(1, 5)[0, :4])
    metric(one, other, "a")
    torch.testing.assert_close(metric.get_buffer()[0].float(), (one - other).square().mean((1, 2, 3)))


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"RegressionScores: prediction and truth of a must have one shape, got \(1, "):
        RegressionScores(MSEMetric())(images(1)[0], images(1)[0, :, :4], "a")


@pytest.mark.parametrize("mapped", [False, True])
def test_distance_of_samples_in_batches(mapped: bool) -> None:
    def mapping(x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=2)

    metric, (prediction, truth) = SampleDistance(mapping if mapped else None), (images(4), images(5)[:4] + 0.1)
    for index in (0, 2):
        metric(list(prediction[index : index + 2]), list(truth[index : index + 2]))
    wanted = MMDMetric(mapping if mapped else None)(truth, prediction) / (13 * 14 * (1 if mapped else 12))
    assert float(metric.aggregate()) == pytest.approx(float(wanted), rel=1e-4)
    metric.reset()
    metric(list(prediction[:1]), list(truth[:1]))
    with pytest.raises(ValueError, match="SampleDistance: there must be two images or more, got 1. Compare"):
        metric.aggregate()
