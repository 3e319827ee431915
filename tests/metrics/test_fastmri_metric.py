"""The scores of volumes equal those of ``fastmri.evaluate``, however the slices arrive."""

from __future__ import annotations

import fastmri.evaluate as official
import numpy as np
import pytest
import torch

from monai_invertible.metrics import FastMRIMetric, central_region

SCALE = 3e-4  # of fastMRI's images


@pytest.fixture
def volumes() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """name -> reference (slices, 24, 20), image (slices, 30, 26) whose centre is near the reference."""
    generator = torch.Generator().manual_seed(0)
    pairs = {}
    for name, slices, noise in (("a.h5", 4, 0.1), ("b.h5", 2, 0.3), ("c.h5", 1, 0.05)):
        image = torch.rand(slices, 30, 26, generator=generator)
        reference = (image + noise * torch.randn(image.shape, generator=generator)).abs()
        pairs[name] = central_region(reference, (24, 20)) * SCALE, image * SCALE
    return pairs


def expected(metric: str, volumes: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
    """By the official functions on whole volumes, cropped as ``fastmri.evaluate.evaluate`` does."""
    from fastmri.data.transforms import center_crop

    values = []
    for reference, image in volumes.values():
        target = center_crop(reference, (reference.shape[-1],) * 2).numpy()
        recons = center_crop(image, (reference.shape[-1],) * 2).numpy()
        values.append(official.METRIC_FUNCS[metric.upper()](target, recons).item())
    return values


def slices_of(
    volumes: dict[str, tuple[torch.Tensor, torch.Tensor]],
) -> list[tuple[str, int, torch.Tensor, torch.Tensor]]:
    return [(name, i, x[i], y[i]) for name, (x, y) in volumes.items() for i in range(len(x))]


@pytest.mark.parametrize("metric", ["nmse", "psnr", "ssim"])
@pytest.mark.parametrize("layout", ["magnitude", "complex", "volume"])
def test_equals_fastmri(metric: str, layout: str, volumes: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    score = FastMRIMetric(metric)
    if layout == "volume":
        for name, (reference, image) in volumes.items():
            score(image[None, None], reference[None, None], filename=[name], slice_index=[0])
    else:
        for i in (3, 6, 0, 5, 1, 4, 2):  # in any order
            name, index, reference, image = slices_of(volumes)[i]
            image = image[None, None]
            if layout == "complex":
                phase = torch.rand(image.shape) * 2 * torch.pi
                image = torch.cat([image * phase.cos(), image * phase.sin()], dim=1)
            maximum = central_region(volumes[name][0], (20, 20)).max()
            score(image, reference[None, None], [name], torch.tensor([index]), maximum[None])
    wanted = expected(metric, volumes)
    assert score.aggregate().item() == pytest.approx(np.mean(wanted), rel=1e-5)
    assert sorted(score.get_buffer().flatten().tolist()) == pytest.approx(sorted(wanted), rel=1e-5)
    score.reset()
    assert score.get_buffer() is None
    with pytest.raises(ValueError, match="there must be a batch before aggregate"):
        score.aggregate()


@pytest.mark.parametrize("metric", ["nmse", "psnr", "ssim"])
def test_two_processes_equal_one(
    metric: str, volumes: dict[str, tuple[torch.Tensor, torch.Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slices are dealt out as a distributed sampler does, which repeats the first to make the parts equal."""
    parts = slices_of(volumes)
    parts.append(parts[0])
    ranks = [FastMRIMetric(metric), FastMRIMetric(metric)]
    for i, (name, index, reference, image) in enumerate(parts):
        maximum = [float(central_region(volumes[name][0], (20, 20)).max())]
        ranks[i % 2](image[None, None], reference[None, None], [name], [index], maximum)
    gathered = torch.cat([torch.stack(rank._buffers[0]) for rank in ranks])
    monkeypatch.setattr("monai.metrics.metric.evenly_divisible_all_gather", lambda data, concat: gathered)
    for rank in ranks:
        assert rank.aggregate().item() == pytest.approx(np.mean(expected(metric, volumes)), rel=1e-5)


def test_a_batch_of_different_volumes(volumes: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    parts = slices_of(volumes)
    score = FastMRIMetric("nmse")
    image, reference = torch.stack([p[3] for p in parts])[:, None], torch.stack([p[2] for p in parts])[:, None]
    score(image, reference, [p[0] for p in parts], [p[1] for p in parts])
    assert score.aggregate().item() == pytest.approx(np.mean(expected("nmse", volumes)), rel=1e-5)


def test_the_maximum_of_the_volume_sets_the_scale_of_psnr(
    volumes: dict[str, tuple[torch.Tensor, torch.Tensor]],
) -> None:
    """It need not lie in a slice that is scored: ten times the maximum is 20 dB more."""
    reference, image = (x[:, None] for x in volumes["c.h5"])
    values = []
    for factor in (1.0, 10.0):
        score = FastMRIMetric("psnr")
        score(image, reference, ["c.h5"], [0], [factor * float(reference.max())])
        values.append(score.aggregate().item())
    assert values[1] - values[0] == pytest.approx(20.0)


def test_errors(volumes: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
    reference, image = (x[:1, None] for x in volumes["a.h5"])
    with pytest.raises(ValueError, match='metric must be "nmse", "psnr" or "ssim", got \'mse\''):
        FastMRIMetric("mse")
    for maximum in (None, [0.0]):
        with pytest.raises(ValueError, match="SSIM of a slice needs the maximum of its volume, got 0.0 for a.h5"):
            FastMRIMetric("ssim")(image, reference, ["a.h5"], [0], maximum)
    with pytest.raises(ValueError, match="image must be at least as large as the reference"):
        FastMRIMetric("nmse")(image[..., :19], reference, ["a.h5"], [0])
    two = torch.rand(1, 4, 20, 20)
    with pytest.raises(ValueError, match=r"complex \(B, 2, \*spatial\) or magnitudes .*, got \(1, 4, 20, 20\) and"):
        FastMRIMetric("nmse")(two, two, ["a.h5"], [0])


def test_central_region() -> None:
    x = torch.arange(30).reshape(5, 6)
    assert torch.equal(central_region(x, (2, 3)), x[1:3, 1:4])
    assert torch.equal(central_region(x, (9, 2)), x[:, 2:4])
