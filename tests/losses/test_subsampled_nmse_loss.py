"""The subsampled NMSE: equation 18, the form of the authors' code, its randomness, and where it is not defined."""

from __future__ import annotations

import pytest
import torch

from monai_invertible.losses import SubsampledNMSELoss


def images(seed=0, batch=3, channels=2, size=(12, 10)):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64) for _ in range(2)]


def drawn_mask(target, ratio):
    """The mask that the loss draws after ``torch.manual_seed(5)``."""
    torch.manual_seed(5)
    return (torch.rand(target.shape[0], 1, *target.shape[2:]) < ratio).double()


@pytest.mark.parametrize("size", [(12, 10), (4, 6, 5)])
@pytest.mark.parametrize("denominator", ["masked", "full"])
def test_with_all_pixels_it_is_the_nmse(size, denominator):
    x, y = images(size=size)
    expected = torch.stack([(a - b).norm() ** 2 / b.norm() ** 2 for a, b in zip(x, y, strict=True)])
    for reduction, value in (("none", expected), ("mean", expected.mean()), ("sum", expected.sum())):
        loss = SubsampledNMSELoss(1, denominator=denominator, reduction=reduction)
        torch.testing.assert_close(loss(x, y), value)


def test_equation_18():
    x, y = images()
    m = drawn_mask(y, 0.3)
    expected = [(a - b).norm() ** 2 / b.norm() ** 2 for a, b in zip(m * x, m * y, strict=True)]
    torch.manual_seed(5)
    torch.testing.assert_close(SubsampledNMSELoss(0.3)(x, y), sum(expected) / 3)


def test_form_of_the_authors_code():
    x, y = images()
    m = drawn_mask(y, 0.3)[:, 0]
    u, v = (torch.complex(i[:, 0], i[:, 1]).abs() for i in (x, y))
    expected = [
        (m[b] * (u[b] - v[b]) ** 2).sum() / m[b].sum() * v[b].numel() / (v[b] ** 2).sum() for b in range(len(x))
    ]
    loss = SubsampledNMSELoss(0.3, magnitude=True, denominator="full")
    torch.manual_seed(5)
    torch.testing.assert_close(loss(x, y), sum(expected) / 3)
    torch.manual_seed(5)
    torch.testing.assert_close(loss(x, v.unsqueeze(1)), sum(expected) / 3)  # a target that is a magnitude already


def test_the_gradient_is_nonzero_under_the_mask_only():
    x, y = images()
    m = drawn_mask(y, 0.3)
    torch.manual_seed(5)
    SubsampledNMSELoss(0.3)(x.requires_grad_(), y).backward()
    assert ((x.grad != 0) == (m != 0).expand_as(x)).all()  # both channels of a pixel, or none


def test_the_fraction_of_pixels_is_the_ratio():
    torch.manual_seed(0)
    x = torch.zeros(1, 2, 400, 400, requires_grad=True)
    SubsampledNMSELoss(0.01)(x, torch.ones_like(x)).backward()
    seen = (x.grad[:, 0] != 0).sum().item()
    assert abs(seen - 1600) < 5 * (1600 * 0.99) ** 0.5  # five standard deviations of a binomial


def test_every_call_draws_anew_and_a_seed_repeats_it():
    x, y = images()
    loss = SubsampledNMSELoss(0.3)
    torch.manual_seed(1)
    first, second = loss(x, y), loss(x, y)
    torch.manual_seed(1)
    assert first != second
    assert loss(x, y) == first


def test_time_steps_share_the_mask_and_are_averaged():
    x, y = images()
    estimates = (x, 2 * x, y)
    loss = SubsampledNMSELoss(0.3, reduction="none")
    single = []
    for estimate in estimates:
        torch.manual_seed(5)
        single.append(loss(estimate, y))
    torch.manual_seed(5)
    torch.testing.assert_close(loss(estimates, y), sum(single) / 3)
    torch.manual_seed(5)
    torch.testing.assert_close(loss(list(estimates), y), sum(single) / 3)


@pytest.mark.parametrize("denominator", ["masked", "full"])
def test_a_sample_without_a_defined_value_contributes_nothing(denominator):
    x, y = images()
    y[1] = 0  # a zero target
    loss = SubsampledNMSELoss(1, denominator=denominator, reduction="none")
    values = loss(x.requires_grad_(), y)
    assert values[1] == 0
    assert (values[[0, 2]] > 0).all()
    values.sum().backward()
    assert not x.grad[1].any()
    assert torch.isfinite(x.grad).all()

    x.grad = None
    empty = SubsampledNMSELoss(1e-12, denominator=denominator)(x, y)  # an empty mask
    assert empty == 0
    empty.backward()
    assert not x.grad.any()


def test_half_precision_is_summed_in_float32():
    x, y = (300 * i.float() for i in images())  # squares overflow float16
    loss = SubsampledNMSELoss(1)
    result = loss(x.half(), y.half())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, loss(x, y), rtol=1e-3, atol=0)


def test_errors():
    x, y = images()
    with pytest.raises(ValueError, match=r"ratio must be in \(0, 1\], got 0. Use 1"):
        SubsampledNMSELoss(0)
    with pytest.raises(ValueError, match="denominator must be 'masked' or 'full', got 'half'"):
        SubsampledNMSELoss(denominator="half")
    with pytest.raises(ValueError, match="same shape, .* Use magnitude=True"):
        SubsampledNMSELoss()(x, y[:, :1])
