"""Data lists of picture folders in both layouts, and how they refuse bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from monai_invertible.data import paired_images_datalist, pictures_datalist, unpaired_images_datalist


def make(root: Path, *names: str) -> Path:
    """Empty files."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_side_by_side(tmp_path: Path) -> None:
    make(tmp_path, "train/10.jpg", "train/9.JPG", "train/.hidden.jpg", "train/notes.txt")
    items = paired_images_datalist(tmp_path)
    path = str(tmp_path / "train" / "9.JPG")
    assert items[0] == {"x": path, "y": path, "side_by_side": True, "name": "9"}
    assert [item["name"] for item in items] == ["9", "10"]
    assert json.loads(json.dumps(items)) == items
    (first, _) = unpaired_images_datalist(tmp_path, domain="y")
    assert first == {"y": path, "side_by_side": True, "name": "9"}


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    """Of any names."""
    make(tmp_path, "10_A.jpg", "9_B.png", "9_A.png", "notes.txt")
    items = pictures_datalist(tmp_path)
    assert [item["name"] for item in items] == ["9_A.png", "9_B.png", "10_A.jpg"]
    assert items[0]["image"] == str(tmp_path / "9_A.png")
    with pytest.raises(FileNotFoundError, match="pictures_datalist: folder .*x does not exist. Give the folder"):
        pictures_datalist(tmp_path / "x")
    (tmp_path / "y").mkdir()
    with pytest.raises(FileNotFoundError, match="y must hold pictures .* got none"):
        pictures_datalist(tmp_path / "y")


def test_separate(tmp_path: Path) -> None:
    make(tmp_path, "testA/1_A.jpg", "testA/2_A.png", "testB/1_B.jpg", "testB/2_B.jpg")
    second = paired_images_datalist(tmp_path, "test")[1]
    x, y = str(tmp_path / "testA" / "2_A.png"), str(tmp_path / "testB" / "2_B.jpg")
    assert second == {"x": x, "y": y, "side_by_side": False, "name": "2"}
    make(tmp_path, "testB/3_B.jpg")
    assert [len(unpaired_images_datalist(tmp_path, "test", domain)) for domain in "xy"] == [2, 3]
    (item,) = unpaired_images_datalist(make(tmp_path / "mine", "cat.jpeg"), None, "y")
    assert item == {"y": str(tmp_path / "mine" / "cat.jpeg"), "side_by_side": False, "name": "cat"}


def test_unequal_pairs(tmp_path: Path) -> None:
    make(tmp_path, "trainA/1_A.jpg", "trainA/2_A.jpg", "trainB/1_B.jpg")
    with pytest.raises(ValueError, match="must have pictures of the same names, got 2 and 1, of which 2 in one only"):
        paired_images_datalist(tmp_path)


def test_missing_folders(tmp_path: Path) -> None:
    make(tmp_path, "train/1.jpg", "valA/1.jpg")
    with pytest.raises(FileNotFoundError, match="folder val .* or valA and valB, got train, valA. Give"):
        paired_images_datalist(tmp_path, "val")
    with pytest.raises(FileNotFoundError, match="unpaired_images_datalist: .* must hold the folder test"):
        unpaired_images_datalist(tmp_path, "test")
    for call in (paired_images_datalist, unpaired_images_datalist):
        with pytest.raises(FileNotFoundError, match="nowhere does not exist. Give the folder"):
            call(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty must hold pictures .*, got none. Give"):
        paired_images_datalist(tmp_path, "empty")


def test_names(tmp_path: Path) -> None:
    make(tmp_path, "train/1.jpg", "train/1.png")
    with pytest.raises(ValueError, match="one picture of a name, got several of 1. Remove"):
        paired_images_datalist(tmp_path)
    with pytest.raises(ValueError, match='domain must be "x" or "y", got .A'):
        unpaired_images_datalist(tmp_path, domain="A")
