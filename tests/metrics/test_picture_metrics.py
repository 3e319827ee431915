"""Scores of pictures against numpy and scikit-image, and of label colours against hand counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from monai_invertible.data import CITYSCAPES_COLORS, CITYSCAPES_VOID_COLORS
from monai_invertible.metrics import ImageQualityMetric, LabelColorMetric, grey_levels, nearest_colors, volume_key


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Two similar 8-bit pictures, (rows, columns, 3)."""
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(40), 3 * np.arange(48))[..., None] + np.array([0, 20, 40])
    truth = np.clip(smooth, 0, 255).astype(np.uint8)
    return np.clip(truth + rng.normal(0, 12, truth.shape), 0, 255).round().astype(np.uint8), truth


def tensor(array: np.ndarray) -> torch.Tensor:
    """As the bundles have it: (3, rows, columns) in [-1, 1]."""
    return torch.from_numpy(array).permute(2, 0, 1).float() / 127.5 - 1


def score(metric: str, a: np.ndarray, b: np.ndarray) -> float:
    found = ImageQualityMetric(metric)
    found(tensor(a), tensor(b), "1")
    return float(found.aggregate())


def test_levels_are_those_of_the_file() -> None:
    a, _ = pictures()
    assert np.array_equal(grey_levels(tensor(a)).permute(1, 2, 0).numpy(), a)
    assert grey_levels(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]


def test_absolute_error_does_not_wrap_around() -> None:
    """The difference of 8-bit arrays, as it was published, is wrong in every pixel that is too dark."""
    a, b = pictures()
    wrapped = np.abs(a - b).mean()
    right = np.abs(a.astype(float) - b).mean()
    assert wrapped > 80 and right < 12
    assert score("mae", a, b) == pytest.approx(right, rel=1e-5)


def test_psnr_and_ssim() -> None:
    a, b = pictures()
    assert score("psnr", a, b) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), rel=1e-5)
    assert score("psnr", a, b) <= 20 * np.log10(255 / score("mae", a, b))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    full = structural_similarity(b, a, channel_axis=-1, full=True, **options)[1]
    assert score("ssim", a, b) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-4)
    assert score("ssim", a, a) == pytest.approx(1, abs=1e-6) and score("mae", a, a) == 0


def test_rows_have_the_order_of_names_and_count_once() -> None:
    a, b = pictures()
    metric = ImageQualityMetric("mae")
    for name, other in (("1", a), ("2", b), ("1", a)):
        metric(tensor(other), tensor(b), name)
    values = dict(zip(sorted("12", key=volume_key), metric.get_buffer()[:, 0].tolist(), strict=True))
    assert values["2"] == 0 and float(metric.aggregate()) == pytest.approx(values["1"] / 2)
    metric.reset()
    with pytest.raises(ValueError, match="ImageQualityMetric: there must be an image before its scores"):
        metric.aggregate()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="ImageQualityMetric: metric must be one of mae, psnr, ssim, got 'fid'"):
        ImageQualityMetric("fid")
    with pytest.raises(ValueError, match=r"of 7 must have one shape, got \(3, 4, 4\) and \(3, 4, 5\). Bring"):
        ImageQualityMetric("mae")(torch.zeros(3, 4, 4), torch.zeros(3, 4, 5), "7")
    with pytest.raises(ValueError, match="LabelColorMetric: metric must be one of .*, got 'dice'"):
        LabelColorMetric("dice", 2)
    with pytest.raises(ValueError, match=r"class maps of one shape, got \(2,\) and \(3,\)"):
        LabelColorMetric("mean_iou", 2)(torch.zeros(2), torch.zeros(3), "7")


def test_nearest_colours() -> None:
    colors = {**CITYSCAPES_COLORS, **CITYSCAPES_VOID_COLORS}
    palette = torch.tensor(list(colors.values())).T[:, None].float()
    assert nearest_colors(palette, colors).tolist() == [list(range(len(colors)))]
    noise = torch.randn(palette.shape, generator=torch.Generator().manual_seed(0))
    assert nearest_colors(palette + noise, colors).tolist() == [list(range(len(colors)))]


TRUTH = torch.tensor([0, 0, 0, 0, 1, 1, 3, 3])  # classes 0, 1, 2; 3 is void
CALLED = torch.tensor([0, 0, 0, 1, 1, 3, 0, 3])


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("pixel_accuracy", 4 / 6),
        ("class_accuracy", (3 / 4 + 1 / 2) / 2),  # class 2 does not occur
        ("mean_iou", (3 / 4 + 1 / 3) / 2),
    ],
)
def test_hand_counts(metric: str, value: float) -> None:
    found = LabelColorMetric(metric, 3)
    found(CALLED, TRUTH, "a")
    assert float(found.aggregate()) == pytest.approx(value) and found.get_buffer().shape == (1, 1)


def test_pixels_of_all_images_count_together() -> None:
    metric = LabelColorMetric("pixel_accuracy", 3)
    metric(torch.tensor([0]), torch.tensor([0]), "small")
    metric(torch.tensor([0, 0, 0]), torch.tensor([1, 1, 1]), "large")
    assert float(metric.aggregate()) == pytest.approx(1 / 4)
    assert sorted(metric.get_buffer()[:, 0].tolist()) == [0, 1]
