"""N4: a known bias field is removed, and nothing else is touched."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_invertible.transforms import CorrectBiasFieldd


@pytest.fixture(scope="module")
def item() -> dict[str, Any]:
    """A ball of two tissues in two contrasts, the first with a strong bias field; ``white`` marks one tissue."""
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in (36, 32, 40)], indexing="ij")
    radius = np.sqrt(sum(axis**2 for axis in axes))
    stripes = np.sin(9 * axes[0]) * np.sin(8 * axes[1]) * np.sin(7 * axes[2]) > 0
    truth = np.where(radius < 0.8, np.where(stripes, 100.0, 150.0), 0.0)
    truth *= np.random.default_rng(0).normal(1.0, 0.02, truth.shape)
    image = np.stack([truth * np.exp(0.4 * axes[0] + 0.3 * axes[2] ** 2), 2 * truth])
    affine = torch.diag(torch.tensor([-2.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    tensor = MetaTensor(torch.from_numpy(image).float(), affine=affine)
    return {"image": tensor, "white": (radius < 0.8) & ~stripes}


def variation(image: torch.Tensor, mask: np.ndarray) -> float:
    values = image.numpy()[mask]
    return float(values.std() / values.mean())


def test_a_known_field_is_removed(item: dict[str, Any]) -> None:
    corrected = CorrectBiasFieldd()(item)["image"]
    before, after = (variation(image[0], item["white"]) for image in (item["image"], corrected))
    assert before > 0.14 and after < 0.06
    assert variation(corrected[1], item["white"]) < 0.04  # it had none


def test_what_is_kept(item: dict[str, Any]) -> None:
    original = item["image"].clone()
    transform = pickle.loads(pickle.dumps(CorrectBiasFieldd(iterations=(5,))))
    corrected = transform(item)["image"]
    assert isinstance(corrected, MetaTensor) and corrected.dtype == torch.float32
    assert torch.equal(corrected.affine, original.affine)
    assert torch.equal(corrected > 0, original > 0)  # the background
    assert torch.equal(item["image"], original)  # the input
    assert torch.equal(transform(item)["image"], corrected)  # and it repeats itself


def test_a_channel_without_foreground_is_left_alone(item: dict[str, Any]) -> None:
    image = torch.stack([torch.zeros(36, 32, 40), item["image"][1].as_tensor()])
    corrected = CorrectBiasFieldd(iterations=(5,))({"image": image})["image"]
    assert not corrected[0].any() and type(corrected) is torch.Tensor and not torch.equal(corrected[1], image[1])


def test_slices(item: dict[str, Any]) -> None:
    corrected = CorrectBiasFieldd(shrink=1)({"image": item["image"][:1, :, :, 20].as_tensor()})["image"]
    mask = item["white"][:, :, 20]
    assert variation(corrected[0], mask) < 0.5 * variation(item["image"][0, :, :, 20], mask)


def test_impossible_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"shrink": 0}, {"iterations": ()}):
        with pytest.raises(ValueError, match="shrink must be at least 1 and iterations have at least one level"):
            CorrectBiasFieldd(**options)
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", None)
    with pytest.raises(ImportError, match="CorrectBiasFieldd: N4 needs SimpleITK, got none. pip install SimpleITK"):
        CorrectBiasFieldd()
