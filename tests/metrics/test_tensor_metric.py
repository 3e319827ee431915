"""Scores of tensors on a synthetic ball, by loops and by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from monai_invertible.metrics import TensorMetric, interior_mask, tensor_brain_mask


@pytest.fixture
def ball() -> Tensor:
    """(6, 17, 17, 17): isotropic diffusion in a ball of radius 6 that touches nothing."""
    axis = torch.arange(17.0) - 8
    inside = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) <= 36
    return torch.tensor([1.0, 0, 0, 1, 0, 1]).view(6, 1, 1, 1) * 1e-3 * inside


def test_masks(ball: Tensor) -> None:
    brain = tensor_brain_mask(ball)
    assert torch.equal(brain, ball[0] > 0)
    inner = interior_mask(brain)
    padded = torch.nn.functional.pad(brain, (2,) * 6)
    for index in torch.cartesian_prod(*(torch.arange(0, 17, 2),) * 3).tolist():
        cube = padded[tuple(slice(i, i + 5) for i in index)]
        assert bool(inner[tuple(index)]) == bool(cube.all())
    assert inner.any() and not interior_mask(torch.ones(4, 4, 4, dtype=torch.bool)).any()
    assert interior_mask(torch.ones(6, 5, 5, dtype=torch.bool)).nonzero().tolist() == [[2, 2, 2], [3, 2, 2]]


def score(prediction: Tensor, truth: Tensor, metric: str = "rmse", **options: bool) -> float:
    scores = TensorMetric(metric, **options)
    scores(prediction, truth, subject="a")
    return scores.aggregate().item()


def test_rmse(ball: Tensor) -> None:
    """A constant error of one component; errors outside the brain do not count."""
    prediction = ball.clone()
    prediction[1] += 6e-5
    assert score(prediction, ball) == pytest.approx(6 / 6**0.5, rel=1e-5)
    prediction[:, ball[0] == 0] = 1.0
    assert score(prediction, ball) == pytest.approx(6 / 6**0.5, rel=1e-5)


def test_interior(ball: Tensor) -> None:
    """An error on the surface alone does not count there, one in the centre counts more."""
    surface, centre = ball.clone(), ball.clone()
    surface[0] += 1e-4 * (tensor_brain_mask(ball) & ~interior_mask(tensor_brain_mask(ball)))
    centre[0, 8, 8, 8] += 1e-3
    assert score(surface, ball, interior=True) == 0 < score(surface, ball)
    count = interior_mask(tensor_brain_mask(ball)).sum().item()
    assert score(centre, ball, interior=True) == pytest.approx(100 / (6 * count) ** 0.5, rel=1e-5)


def test_maps(ball: Tensor) -> None:
    prediction = ball.clone()
    prediction[5] += 3e-4 * (ball[0] > 0)
    assert score(prediction, ball, "rmse_md") == pytest.approx(10.0, rel=1e-5)
    anisotropy = (1.5 * (2 * 0.1**2 + 0.2**2) / (1 + 1 + 1.3**2)) ** 0.5
    assert score(prediction, ball, "rmse_fa") == pytest.approx(anisotropy, rel=1e-4)


def test_positive_definite(ball: Tensor) -> None:
    prediction = ball.clone()
    assert score(prediction, ball, "positive_definite") == 1.0
    prediction[1, :8] = 1.1e-3  # eigenvalues 1 +- 1.1
    brain = ball[0] > 0
    assert score(prediction, ball, "positive_definite") == pytest.approx((brain[8:].sum() / brain.sum()).item())


def test_subjects_count_once_and_equally(ball: Tensor) -> None:
    metric = TensorMetric()
    for subject, error in (("a", 1e-5), ("b", 3e-5), ("a", 1e-5)):
        metric(ball + error, ball, subject=subject)
    assert sorted(metric.get_buffer().flatten().tolist()) == pytest.approx([1.0, 3.0], rel=1e-3)
    assert metric.aggregate().item() == pytest.approx(2.0, rel=1e-3)


def test_errors(ball: Tensor) -> None:
    with pytest.raises(ValueError, match="metric must be one of rmse, rmse_md, rmse_fa, positive_definite, got 'mse'"):
        TensorMetric("mse")
    with pytest.raises(ValueError, match=r"of a must be tensors \(6, x, y, z\) on the same voxels.*high resolution"):
        TensorMetric()(ball[:, 1:], ball, subject="a")
    with pytest.raises(ValueError, match="truth of a must have a voxel other than 0, got none"):
        TensorMetric()(ball, 0 * ball, subject="a")
    with pytest.raises(ValueError, match="must have a cube of 5 x 5 x 5 voxels in the brain"):
        TensorMetric(interior=True)(ball[:, 3:7], ball[:, 3:7], subject="a")
