"""Mask inference, magnitude and scale of measured k-space."""

from __future__ import annotations

import pytest
import torch

from monai_invertible.operators import FourierSampling, kspace_scale, magnitude, prepare_measurement, sampling_mask


@pytest.mark.parametrize("spatial", [(6, 9), (3, 5, 8)])
def test_columns_are_seen_in_the_data(spatial):
    torch.manual_seed(0)
    mask = (torch.rand(3, *[1] * len(spatial), spatial[-1], 1) < 0.4).float()
    kspace = torch.randn(3, 2, *spatial, 2) * mask
    assert sampling_mask(kspace).equal(mask)
    kspace[:, 0] = 0  # a coil that sees nothing does not matter
    kspace[..., 0] = 0  # nor does a missing real part
    kspace[:, :, 0] = 0  # nor a missing row or slice
    assert sampling_mask(kspace).equal(mask)


def test_locations_are_seen_in_the_data():
    torch.manual_seed(0)
    mask = (torch.rand(3, 1, 6, 9, 1) < 0.4).float()
    kspace = torch.randn(3, 2, 6, 9, 2) * mask
    kspace[:, 0] = 0
    assert sampling_mask(kspace, columns=False).equal(mask)


def test_magnitude():
    image = torch.tensor([3.0, 4.0, 0.0, 0.0]).reshape(1, 4, 1, 1).requires_grad_()
    result = magnitude(image)
    assert result.flatten().tolist() == [5.0, 0.0]
    result.sum().backward()
    torch.testing.assert_close(image.grad.flatten(), torch.tensor([0.6, 0.8, 0.0, 0.0]))
    assert magnitude(image[:, :1]).data_ptr() == image.data_ptr()  # a magnitude already
    with pytest.raises(ValueError, match=r"or a magnitude \(B, 1, \*spatial\), got \(1, 3, 1, 1\)"):
        magnitude(image[:, :3])


@pytest.mark.parametrize("spatial", [(6, 7), (5, 6, 7)])
def test_magnitude_is_the_root_of_the_sum_of_squares(spatial):
    image = torch.randn(2, 2, *spatial)
    torch.testing.assert_close(magnitude(image), image.square().sum(1, keepdim=True).sqrt())


def test_scale_is_one_number_per_sample_and_follows_the_unit():
    torch.manual_seed(0)
    image = torch.randn(2, 2, 8, 8) * torch.tensor([1e-6, 1e3]).reshape(2, 1, 1, 1)
    scale = kspace_scale(image)
    assert scale.shape == (2, 1, 1, 1)
    for b in range(2):
        z = image[b].square().sum(0).sqrt()
        torch.testing.assert_close(scale[b].squeeze(), (z * z).sum() / z.sum())
    torch.testing.assert_close(kspace_scale(4 * image), 4 * scale)
    torch.testing.assert_close(kspace_scale(torch.nn.functional.pad(image, (5, 4, 3, 2))), scale)  # air does not matter


def test_an_empty_measurement_stays_zero():
    kspace = torch.zeros(1, 1, 4, 4, 2, requires_grad=True)
    image, mask, scale = prepare_measurement(FourierSampling(), kspace)
    assert not mask.any()
    assert not image.any()
    (image * scale).sum().backward()
    assert torch.isfinite(kspace.grad).all()


def test_prepared_measurement():
    torch.manual_seed(0)
    mask = torch.tensor([1.0, 0, 1, 1, 0, 1]).reshape(1, 1, 1, 6, 1)
    maps = torch.randn(1, 3, 5, 6, 2)
    kspace = FourierSampling()(torch.randn(1, 2, 5, 6), mask, maps)
    image, inferred, scale = prepare_measurement(FourierSampling(), kspace, None, maps)
    assert inferred.equal(mask)
    torch.testing.assert_close(image * scale, FourierSampling().adjoint(kspace, mask, maps))
    torch.testing.assert_close(kspace_scale(image), torch.ones(1, 1, 1, 1))


def test_errors():
    operator = FourierSampling()
    with pytest.raises(ValueError, match="k-space must be .* Use torch.view_as_real"):
        prepare_measurement(operator, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="3 coils need sensitivities, got None"):
        prepare_measurement(operator, torch.zeros(1, 3, 8, 8, 2))
