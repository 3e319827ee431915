"""The loss of the U-Net baseline."""

from __future__ import annotations

import pytest
import torch

from monai_invertible.losses import MagnitudeL1Loss


def test_it_is_the_mean_error_of_magnitudes_over_the_spread_of_the_target() -> None:
    torch.manual_seed(0)
    prediction, target = torch.rand(2, 1, 5, 6), torch.randn(2, 2, 5, 6)
    magnitudes = target.square().sum(1, keepdim=True).sqrt()
    expected = [(p - t).abs().mean() / t.std() for p, t in zip(prediction, magnitudes, strict=True)]
    torch.testing.assert_close(MagnitudeL1Loss(reduction="none")(prediction, target), torch.stack(expected))
    torch.testing.assert_close(MagnitudeL1Loss()(prediction, target), sum(expected) / 2)
    torch.testing.assert_close(MagnitudeL1Loss("sum")(prediction, target), sum(expected))


def test_neither_phase_nor_scale_matters() -> None:
    torch.manual_seed(0)
    prediction, target = torch.rand(1, 1, 5, 6), torch.randn(1, 2, 5, 6)
    turned = torch.stack([-target[:, 1], target[:, 0]], 1)
    loss = MagnitudeL1Loss()
    torch.testing.assert_close(loss(prediction * 1e-5, turned * 1e-5), loss(prediction, target))


def test_an_empty_target_gives_no_nan_for_an_empty_prediction() -> None:
    prediction = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss = MagnitudeL1Loss()(prediction, torch.zeros(1, 2, 4, 4))
    loss.backward()
    assert loss == 0
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="MagnitudeL1Loss: .*Crop or pad"):
        MagnitudeL1Loss()(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
