"""Pictures from files: halves, orientation, pairs that keep their geometry, partners, and damaged files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import Dataset
from monai.transforms import Compose, RandFlipd, RandSpatialCropd, Resized
from PIL import Image

from monai_invertible.data import paired_images_datalist
from monai_invertible.transforms import LoadPicturesd, RandPartnerd


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def save(array: np.ndarray, path: Path) -> str:
    Image.fromarray(array).save(path)
    return str(path)


def test_halves(tmp_path: Path, array: np.ndarray) -> None:
    """Rows first, channels first, X on the left."""
    path = save(array, tmp_path / "1.png")
    loaded = LoadPicturesd()({"x": path, "y": path, "side_by_side": True})
    expected = torch.from_numpy(array).permute(2, 0, 1).float()
    torch.testing.assert_close(loaded["x"].as_tensor(), expected[..., :4])
    torch.testing.assert_close(loaded["y"].as_tensor(), expected[..., 4:])
    alone = LoadPicturesd()({"y": path, "side_by_side": True})
    torch.testing.assert_close(alone["y"].as_tensor(), expected[..., 4:])
    torch.testing.assert_close(LoadPicturesd()({"x": path})["x"].as_tensor(), expected)


def test_grey_pictures_have_three_channels(tmp_path: Path, array: np.ndarray) -> None:
    loaded = LoadPicturesd()({"x": save(array[..., 0], tmp_path / "1.png")})["x"]
    assert loaded.shape == (3, 6, 8) and torch.equal(loaded[0], loaded[2])


def test_bad_files(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(FileNotFoundError, match="9.jpg: this picture does not exist. Restore"):
        LoadPicturesd()({"x": str(tmp_path / "9.jpg")})
    path = save(np.tile(array, (40, 40, 1)), tmp_path / "1.jpg")
    os.truncate(path, os.path.getsize(path) // 2)
    with pytest.raises(OSError, match="1.jpg: this picture cannot be read .*truncated.* fetch it again"):
        LoadPicturesd()({"x": path})
    (tmp_path / "2.jpg").write_text("<html>not found</html>")
    with pytest.raises(OSError, match="2.jpg: this picture cannot be read .* fetch it again"):
        LoadPicturesd()({"x": str(tmp_path / "2.jpg")})
    path = save(np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000, tmp_path / "4.png")
    with pytest.raises(OSError, match="4.png: .*more than 8 bits a channel, PIL's mode I;16.* scale it"):
        LoadPicturesd()({"x": path})
    path = save(array[:, :7], tmp_path / "3.png")
    with pytest.raises(ValueError, match="3.png: two pictures side by side must have an even width, got 7 columns"):
        LoadPicturesd()({"x": path, "side_by_side": True})


def test_both_halves_of_a_pair_are_cropped_and_flipped_alike(tmp_path: Path) -> None:
    """As the bundles do it: with the same picture on both sides they stay the same."""
    (tmp_path / "train").mkdir()
    half = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    save(np.concatenate((half, half), axis=1), tmp_path / "train" / "1.png")
    keys = ["x", "y"]
    steps: list[Any] = [LoadPicturesd(), Resized(keys, (24, 24), mode="bicubic", anti_aliasing=True)]
    steps += [RandSpatialCropd(keys, (16, 16), random_size=False), RandFlipd(keys, prob=0.5, spatial_axis=1)]
    dataset = Dataset(paired_images_datalist(tmp_path), Compose(steps).set_random_state(0))
    pictures = [dataset[0] for _ in range(6)]
    assert all(torch.equal(p["x"].as_tensor(), p["y"].as_tensor()) for p in pictures)
    assert len({float(p["x"][0, 0, 0]) for p in pictures}) > 3


def test_partners() -> None:
    partners = [{"y": str(number), "name": "theirs"} for number in range(5)]
    transform = RandPartnerd("y", partners).set_random_state(0)
    drawn = [transform({"x": "a", "name": "mine"}) for _ in range(50)]
    assert {item["y"] for item in drawn} == set("01234") and {item["name"] for item in drawn} == {"mine"}
    transform.set_random_state(0)
    assert [transform({})["y"] for _ in range(50)] == [item["y"] for item in drawn]
    for wrong in ([], [{"x": "1"}]):
        with pytest.raises(ValueError, match="RandPartnerd: partners must be items with y, got"):
            RandPartnerd("y", wrong)
