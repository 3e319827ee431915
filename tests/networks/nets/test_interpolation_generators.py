"""Interpolation between blocks is PyTorch's, and right on polynomials."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from monai_invertible.networks import InterpolationGenerators


def repeated(blocks: torch.Tensor, shape: tuple[int, ...], factor: int = 2) -> torch.Tensor:
    for axis in (2, 3, 4):
        blocks = blocks.repeat_interleave(factor, dim=axis)
    return blocks[..., : shape[0], : shape[1], : shape[2]]


@pytest.fixture
def blocks() -> torch.Tensor:
    return torch.randn(2, 6, 5, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_linear_is_torchs_trilinear(blocks: torch.Tensor) -> None:
    x = repeated(blocks, (10, 8, 12))
    expected = F.interpolate(blocks, scale_factor=2, mode="trilinear", align_corners=False)
    torch.testing.assert_close(InterpolationGenerators("linear")(x), expected)
    odd = repeated(blocks, (9, 8, 11))
    torch.testing.assert_close(InterpolationGenerators("linear")(odd), expected[:, :, :9, :, :11])


def test_nearest_is_the_input(blocks: torch.Tensor) -> None:
    x = repeated(blocks, (9, 7, 12))
    assert torch.equal(InterpolationGenerators("nearest")(x), x)


@pytest.mark.parametrize("factor", [2, 3])
def test_cubic_is_exact_for_parabolas(factor: int) -> None:
    def image(axis: torch.Tensor) -> torch.Tensor:
        a, b, c = torch.meshgrid(axis, axis, axis, indexing="ij")
        return (a**2 - 2 * b * c + c**2 - a)[None, None]

    coarse, fine = torch.arange(8.0).double(), (torch.arange(8 * factor).double() + 0.5) / factor - 0.5
    found = InterpolationGenerators("cubic", factor)(repeated(image(coarse), (8 * factor,) * 3, factor))
    inner = (..., *(slice(2 * factor, -2 * factor),) * 3)
    torch.testing.assert_close(found[inner], image(fine)[inner])


def test_inverse_is_the_mean_of_blocks(blocks: torch.Tensor) -> None:
    y = torch.randn(2, 3, 9, 8, 7, dtype=torch.float64)
    found = InterpolationGenerators()(y, direction="inverse")
    assert found.shape == y.shape
    torch.testing.assert_close(found[..., :8, :, :6], repeated(F.avg_pool3d(y, 2), (8, 8, 6)))
    torch.testing.assert_close(found[..., 8, 0, 6], y[..., 8, :2, 6].mean(-1))
    x = repeated(blocks, (10, 8, 12))
    torch.testing.assert_close(InterpolationGenerators()(x, direction="inverse"), x)


def test_errors() -> None:
    for mode, factor in (("spline", 2), ("linear", 0)):
        with pytest.raises(ValueError, match="mode must be one of nearest, linear, cubic and factor at least 1, got"):
            InterpolationGenerators(mode, factor)
