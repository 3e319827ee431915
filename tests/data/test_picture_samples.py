"""The sample sets of Maps and Cityscapes alike: same seed same bytes, both layouts the same, no harm to others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_invertible.__main__ import main
from monai_invertible.data import CITYSCAPES_COLORS, write_cityscapes_sample, write_maps_sample
from monai_invertible.data.sample_pictures import load_picture

Write = Callable[..., Path]
BOTH = pytest.mark.parametrize("write", [write_maps_sample, write_cityscapes_sample])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def picture(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=float)


@BOTH
def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, write: Write) -> None:
    options = {"train": 2, "val": 1, "size": 16}
    once, again = contents(write(tmp_path / "a", **options)), contents(write(tmp_path / "b", **options))
    other = contents(write(tmp_path / "c", **options, seed=1))
    assert once == again
    assert sorted(once) == sorted(
        ["SAMPLE_DATA.md", "train/1.jpg", "train/2.jpg", "val/1.jpg"]
        + [f"train{x}/{n}_{x}.jpg" for n in (1, 2) for x in "AB"]
        + [f"val{x}/1_{x}.jpg" for x in "AB"]
    )
    assert all(once[name] != other[name] for name in once if name.endswith(".jpg"))


@pytest.mark.parametrize("name", ["maps", "cityscapes"])
def test_both_layouts_hold_the_same_pictures(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{name}_folder")
    pairs = [picture(folder / "train" / f"{n}.jpg") for n in (1, 2, 3, 4)]
    for number, both in enumerate(pairs, start=1):
        assert both.shape == (32, 64, 3)
        for letter, half in zip("AB", (both[:, :32], both[:, 32:]), strict=True):
            assert np.abs(picture(folder / f"train{letter}" / f"{number}_{letter}.jpg") - half).mean() < 6
    assert all(np.abs(a - b).mean() > 5 for i, a in enumerate(pairs) for b in pairs[:i])


def test_labels_have_the_colours_of_cityscapes(tmp_path: Path) -> None:
    """At the size at which nothing is resized much; lossy files are near, but for the borders between labels."""
    folder = write_cityscapes_sample(tmp_path, train=1, val=1, size=256)
    pixels = picture(folder / "trainB" / "1_B.jpg").reshape(-1, 1, 3)
    distance = np.abs(pixels - np.array(list(CITYSCAPES_COLORS.values()))).max(axis=-1).min(axis=-1)
    assert (distance < 25).mean() > 0.75
    assert len(CITYSCAPES_COLORS) == len(set(CITYSCAPES_COLORS.values())) == 19


@BOTH
def test_a_folder_of_others_is_never_touched(tmp_path: Path, write: Write) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.jpg").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="is not empty and was not written by this command"):
            write(tmp_path, overwrite=overwrite)
    assert contents(tmp_path) == {"train/1.jpg": b"mine"}


@BOTH
def test_overwrite_replaces_all_pictures(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "old", train=3, val=2, size=16)
    with pytest.raises(FileExistsError, match="holds a sample set already.*--overwrite"):
        write(tmp_path / "old", train=1, val=1, size=16)
    write(tmp_path / "old", train=1, val=1, size=16, overwrite=True)
    assert contents(tmp_path / "old") == contents(write(tmp_path / "new", train=1, val=1, size=16))


@BOTH
@pytest.mark.parametrize("options", [{"size": 15}, {"train": 0}, {"val": 0}])
def test_impossible_arguments(tmp_path: Path, write: Write, options: dict[str, int]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"{write.__name__}: size must be at least 16, .*{name}={value}.* Use"):
        write(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_too_many_tiles(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="together at most 137, got .*train=1000"):
        write_maps_sample(tmp_path / "new", train=1000)


def test_missing_package() -> None:
    for package in ("nowhere", "nowhere.inside"):
        with pytest.raises(FileNotFoundError, match="a.jpg of the package shop is needed, got none. pip install shop"):
            load_picture(package, "a.jpg", "shop")


@pytest.mark.parametrize("name", ["maps", "cityscapes"])
def test_command_line(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample-data", name, str(tmp_path / "sample"), "--train", "2", "--val", "1", "--size", "16"]
    assert main(command) == 0
    assert [line.split("]")[0] for line in capsys.readouterr().out.splitlines()] == ["[train", "[val"]
    assert main(command) == 1
    assert capsys.readouterr().err.startswith("error: sample data: ")
    assert main([*command, "--overwrite"]) == 0
