"""Noise to score and to draw from, a denoiser at fixed times, and samples: with denoisers that know the answer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.inferers import DiffusionInferer
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

from monai_invertible.engines import DiffusionSampler, PrepareBatchNoise, TimestepsInferer

SHAPE = (1, 4, 5, 6)


def batch(*names: str, channels: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    images = {name: torch.rand(SHAPE, generator=generator) * 2 - 1 for name in "ab"}
    condition = torch.rand(len(names), channels, *SHAPE[1:], generator=generator)
    return {"image": torch.stack([images[name] for name in names]), "condition": condition, "subject": list(names)}


def test_noise_belongs_to_the_subject() -> None:
    """Not to its place in the batch, to the epoch or to the state of the generators."""
    prepare = PrepareBatchNoise(timesteps=[1, 5, 9])
    image, noise, arguments, options = prepare(batch("a", "b"))
    torch.manual_seed(1)
    _, other, _, _ = prepare(batch("b", "a"))
    assert noise.shape == (2, 3, 4, 5, 6) and arguments == () and options["noise"] is noise
    assert torch.equal(noise, other.flip(0)) and not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[:, 0], noise[:, 1])
    assert torch.equal(options["timesteps"], torch.tensor([1, 5, 9])) and torch.equal(image, batch("a", "b")["image"])
    assert not torch.equal(noise, PrepareBatchNoise([1, 5, 9], seed=1)(batch("a", "b"))[1])
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1


def test_noise_to_draw() -> None:
    data = batch("a", channels=2)
    noise, truth, _, options = PrepareBatchNoise()(data, dtype=torch.float64)
    assert noise.shape == (1, *SHAPE) and noise.dtype == truth.dtype == torch.float64
    assert options.keys() == {"condition"} and options["condition"].shape == (1, 2, 4, 5, 6)
    del data["image"]
    assert PrepareBatchNoise()(data)[1] is None
    with pytest.raises(ValueError, match='PrepareBatchNoise: the batch must have "image" to be scored, got .* Set'):
        PrepareBatchNoise(timesteps=[1])(data)


@pytest.mark.parametrize("channels", [0, 2])
def test_each_timestep_as_if_alone(channels: int) -> None:
    seen = []

    def network(x: torch.Tensor, timesteps: torch.Tensor, context: Any = None) -> torch.Tensor:
        seen.append(timesteps.tolist())
        return x[:, :1] * timesteps[:, None, None, None, None] + x.sum(1, keepdim=True)

    data = batch("a", "b", channels=channels)
    image, noise, _, options = PrepareBatchNoise(timesteps=[1, 5, 9])(data)
    scheduler = DDPMScheduler(num_train_timesteps=10)
    found = TimestepsInferer(scheduler)(image, network, **options)
    assert seen == [[1, 1], [5, 5], [9, 9]] and found.shape == noise.shape
    for index, step in enumerate((1, 5, 9)):
        one = DiffusionInferer(scheduler)(
            image,
            network,
            noise=noise[:, [index]],
            timesteps=torch.tensor([step, step]),
            condition=data["condition"],
            mode="concat",
        )
        assert torch.equal(found[:, [index]], one)


@pytest.mark.parametrize(("kind", "steps"), [(DDPMScheduler, None), (DDIMScheduler, 5)])
def test_a_denoiser_that_knows_the_image_draws_it(kind: type, steps: int | None) -> None:
    scheduler = kind(num_train_timesteps=20, beta_end=0.5)
    image, products = batch("a")["image"], scheduler.alphas_cumprod

    def network(x: torch.Tensor, timesteps: torch.Tensor, context: Any = None) -> torch.Tensor:
        product = products[timesteps.long()]
        return (x - product.sqrt() * image) / (1 - product).sqrt()

    noise, _, _, options = PrepareBatchNoise()(batch("a"))
    torch.testing.assert_close(DiffusionSampler(scheduler, steps)(noise, network, **options), image, rtol=0, atol=1e-3)
    assert len(scheduler.timesteps) == (steps or 20)


def test_the_condition_is_seen_at_every_step() -> None:
    seen = []

    def network(x: torch.Tensor, timesteps: torch.Tensor, context: Any = None) -> torch.Tensor:
        seen.append(x[:, 1:])
        return x[:, :1]

    data = batch("a", channels=2)
    noise, _, _, options = PrepareBatchNoise()(data)
    DiffusionSampler(DDIMScheduler(num_train_timesteps=20), 4)(noise, network, **options)
    assert len(seen) == 4 and all(torch.equal(condition, data["condition"]) for condition in seen)


def test_ddpm_takes_all_steps() -> None:
    with pytest.raises(ValueError, match="DiffusionSampler: DDPM takes the 20 steps .* got steps=5. Use DDIM"):
        DiffusionSampler(DDPMScheduler(num_train_timesteps=20), 5)


def test_velocity_is_scored_as_noise() -> None:
    """A network that knows the velocity predicts the noise without error."""
    scheduler = DDPMScheduler(num_train_timesteps=10, prediction_type="v_prediction")
    data = batch("a", "b")
    image, noise, _, options = PrepareBatchNoise(timesteps=[1, 9])(data)
    parts = iter(noise.chunk(2, dim=1))

    def network(x: torch.Tensor, timesteps: torch.Tensor, context: Any = None) -> torch.Tensor:
        return scheduler.get_velocity(image, next(parts), timesteps)

    torch.testing.assert_close(TimestepsInferer(scheduler)(image, network, **options), noise)


def test_samplers_share_a_scheduler() -> None:
    scheduler, counts = DDIMScheduler(num_train_timesteps=20), []

    def network(x: torch.Tensor, timesteps: torch.Tensor, context: Any = None) -> torch.Tensor:
        counts.append(timesteps)
        return torch.zeros_like(x)

    few, many = DiffusionSampler(scheduler, 2), DiffusionSampler(scheduler, 5)
    noise, _, _, options = PrepareBatchNoise()(batch("a"))
    few(noise, network, **options)
    assert len(counts) == 2
    many(noise, network, **options)
    assert len(counts) == 7
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        DiffusionSampler(scheduler, 0)


def test_images_are_no_noise() -> None:
    with pytest.raises(ValueError, match='must predict "epsilon" or "v_prediction", got "sample"'):
        TimestepsInferer(DDPMScheduler(num_train_timesteps=10, prediction_type="sample"))
