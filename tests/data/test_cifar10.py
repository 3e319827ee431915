"""CIFAR-10's batches: read as distributed, without running what a pickle may hold; the sample set; damaged files."""

from __future__ import annotations

import io
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_invertible.__main__ import main
from monai_invertible.data import cifar10_classes, cifar10_datalist, write_cifar10_sample
from monai_invertible.data.python2_pickle import dump_python2_pickle, load_python2_pickle
from monai_invertible.data.sample_pictures import load_picture

BATCHES = ["batches.meta", *(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(items: list[dict[str, Any]]) -> np.ndarray:
    return np.stack([item["image"] for item in items])


# ------------------------------------------------------------------------------------------------------------- pickles

# As Python 2's cPickle writes it, with memo and short numbers: {"data": uint8 [[1, 2, 3], [250, 251, 252]], "n": 7}
BY_PYTHON_2 = (
    b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b"
    b"\x87Rq\x05(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ"
    b"\xff\xff\xff\xffK\x00tb\x89U\x06\x01\x02\x03\xfa\xfb\xfctbU\x01nK\x07u."
)


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    (tmp_path / "batch").write_bytes(BY_PYTHON_2)
    found = load_python2_pickle(tmp_path / "batch")
    assert found.keys() == {b"data", b"n"} and found[b"n"] == 7
    assert found[b"data"].dtype == np.uint8 and found[b"data"].tolist() == [[1, 2, 3], [250, 251, 252]]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_pickle_of_python_3(protocol: int, tmp_path: Path) -> None:
    """Of a copy that somebody saved again, also of an array in the other order."""
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    (tmp_path / "batch").write_bytes(pickle.dumps({b"a": array, b"b": np.asfortranarray(array)}, protocol))
    found = load_python2_pickle(tmp_path / "batch")
    assert np.array_equal(found[b"a"], array) and np.array_equal(found[b"b"], array)


@pytest.mark.filterwarnings("ignore:numpy.core is deprecated:DeprecationWarning")  # Python 2's name of NumPy's module
def test_what_is_written_is_read_by_everyone(tmp_path: Path) -> None:
    """By Python's own reader, in both encodings that readers of CIFAR-10 use."""
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    value = {b"data": array, b"labels": [1, -2, 10**9], b"more": [b"x" * 300, None, True, (1, b"y")]}
    (tmp_path / "batch").write_bytes(dump_python2_pickle(value))
    for found in (
        load_python2_pickle(tmp_path / "batch"),
        pickle.loads((tmp_path / "batch").read_bytes(), encoding="bytes"),
    ):
        assert found.keys() == value.keys() and np.array_equal(found[b"data"], array)
        assert found[b"labels"] == value[b"labels"] and found[b"more"] == value[b"more"]
    assert pickle.loads((tmp_path / "batch").read_bytes(), encoding="latin1").keys() == {"data", "labels", "more"}
    with pytest.raises(ValueError, match="values must be bytes, int, .* got <class 'float'>. Convert it"):
        dump_python2_pickle([0.5])


class Attack:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple]:
        return self.call


@pytest.mark.parametrize(
    "attack", [Attack(os.mkdir, "hacked"), Attack(eval, "1"), Attack(np.load, "x"), Attack(io.StringIO, "x")]
)
def test_code_is_never_executed(attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("batch").write_bytes(pickle.dumps({b"data": attack}, protocol=2))
    with pytest.raises(OSError, match=r"batch: this pickle cannot be read \(it asks for \S+, which is never executed"):
        load_python2_pickle("batch")
    assert os.listdir() == ["batch"]


# -------------------------------------------------------------------------------------------------------------- lists


def test_lists(cifar10_folder: Path) -> None:
    train, test = (cifar10_datalist(cifar10_folder, section) for section in ("train", "test"))
    assert len(train) == 5 * len(test) == 100
    assert [item["name"] for item in test[:2]] == ["test_batch-00000", "test_batch-00001"]
    assert len({item["name"] for item in train + test}) == 120
    for items in (train, test):
        assert pixels(items).dtype == np.uint8 and items[0]["image"].shape == (3, 32, 32)
        assert np.bincount([item["label"] for item in items]).tolist() == [len(items) // 10] * 10
    inside = cifar10_folder / "cifar-10-batches-py"
    assert np.array_equal(pixels(cifar10_datalist(inside, "train")), pixels(train))
    parts = cifar10_datalist(cifar10_folder, ["data_batch_2", "data_batch_5"])
    assert np.array_equal(pixels(parts), pixels(train[20:40] + train[80:]))
    assert cifar10_datalist(cifar10_folder, "data_batch_2")[0]["name"] == "data_batch_2-00000"


def test_red_comes_first_and_rows_before_columns(tmp_path: Path) -> None:
    """As CIFAR-10 is described: 1024 red values, row by row, then green, then blue."""
    row = np.zeros((1, 3072), np.uint8)
    row[0, [5, 1024 + 32, 2048 + 1023]] = 1, 2, 3
    (tmp_path / "test_batch").write_bytes(dump_python2_pickle({b"data": row, b"labels": [0]}))
    (tmp_path / "batches.meta").write_bytes(dump_python2_pickle({b"label_names": [b"airplane"]}))
    (item,) = cifar10_datalist(tmp_path, "test")
    assert (item["image"][0, 0, 5], item["image"][1, 1, 0], item["image"][2, 31, 31]) == (1, 2, 3)
    assert item["image"].sum() == 6 and cifar10_classes(tmp_path) == ["airplane"]


@pytest.fixture
def damaged(cifar10_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(cifar10_folder / "cifar-10-batches-py", tmp_path / "cifar-10-batches-py"))


def rewrite(path: Path, **entries: Any) -> None:
    batch = load_python2_pickle(path) | {key.encode(): value for key, value in entries.items()}
    path.write_bytes(dump_python2_pickle({key: value for key, value in batch.items() if value is not ...}))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"data": ...}, 'must hold images as "data" of shape .images, 3072., got the entries .*labels'),
        ({"data": np.zeros((20, 768), np.uint8)}, r'must hold images as "data" .*, got shape \(20, 768\)'),
        ({"data": np.zeros((20, 3, 1024), np.uint8)}, r"got shape \(20, 3, 1024\). Use the version of CIFAR-10 for"),
        ({"labels": ...}, 'must hold "labels", one for each of its 20 images, got the entries'),
        ({"labels": ..., "fine_labels": [0] * 20}, "got the entries .*fine_labels.* Use the version of CIFAR-10"),
        ({"labels": [0] * 19}, 'must hold "labels", one for each of its 20 images, got 19. Use'),
        ({"labels": [0] * 19 + [10]}, "labels must be 0 to 9, as batches.meta names 10 classes, got 10. Take both"),
        ({"labels": [-1] * 20}, "labels must be 0 to 9, .* got -1"),
        ({"labels": [b"0"] * 20}, "labels must be 0 to 9, .* got b'0'"),
    ],
)
def test_batches_that_do_not_fit(damaged: Path, entries: dict[str, Any], message: str) -> None:
    rewrite(damaged / "data_batch_3", **entries)
    with pytest.raises(ValueError, match=f"data_batch_3: .*{message}"):
        cifar10_datalist(damaged)


@pytest.mark.parametrize(
    "content",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: b"<html>not found</html>",
        lambda whole: b"\x1f\x8b" + whole,
        lambda whole: dump_python2_pickle([1]),
        lambda whole: whole.replace(b"u1", b"f4"),
        lambda whole: pickle.dumps({b"data": np.zeros(3)}, 2),
    ],
)
def test_files_that_cannot_be_read(damaged: Path, content: Callable[[bytes], bytes]) -> None:
    file = damaged / "data_batch_2"
    file.write_bytes(content(file.read_bytes()))
    with pytest.raises(OSError, match="data_batch_2: this pickle cannot be read .*fetch it again"):
        cifar10_datalist(damaged)


def test_missing_files(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="folder .*nowhere does not exist. Give the folder of the data set"):
        cifar10_datalist(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="must hold the file val, got batches.meta, .*test_batch. Give .*names"):
        cifar10_datalist(tmp_path, "val")
    (damaged / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match="must hold the file data_batch_4, got batches.meta, data_batch_1"):
        cifar10_datalist(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="must hold the file batches.meta, got nothing. Give the folder cifar-"):
        cifar10_classes(tmp_path / "empty")
    rewrite(damaged / "batches.meta", label_names=..., fine_label_names=[b"apple"])
    with pytest.raises(ValueError, match='batches.meta must hold the names of the classes .*"label_names", got None'):
        cifar10_classes(tmp_path)


# --------------------------------------------------------------------------------------------------------- sample set


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    once, again = (contents(write_cifar10_sample(tmp_path / name, images=60)) for name in "ab")
    other = contents(write_cifar10_sample(tmp_path / "c", images=60, seed=1))
    assert once == again and sorted(once) == ["SAMPLE_DATA.md", *(f"cifar-10-batches-py/{name}" for name in BATCHES)]
    assert all(once[name] != other[name] for name in once if "_batch" in name)


def test_images_are_pieces_of_their_pictures_and_those_to_test_share_no_pixel(cifar10_folder: Path) -> None:
    """Every piece is found in its picture; where those to train on lie, none to test lies."""
    picture = load_picture("skimage", "data/chelsea.png", "scikit-image").transpose(2, 0, 1)
    label = cifar10_classes(cifar10_folder).index("cat")
    windows = np.lib.stride_tricks.sliding_window_view(picture, (3, 32, 32))[0]
    seen = {}
    for section in ("train", "test"):
        seen[section] = np.zeros(picture.shape[1:], bool)
        for item in (item for item in cifar10_datalist(cifar10_folder, section) if item["label"] == label):
            corners = np.argwhere((windows[..., 0, 0, :4] == item["image"][0, 0, :4]).all(axis=-1))
            (corner,) = [c for c in corners if np.array_equal(windows[tuple(c)], item["image"])]
            seen[section][corner[0] : corner[0] + 32, corner[1] : corner[1] + 32] = True
    assert seen["train"].any() and seen["test"].any() and not (seen["train"] & seen["test"]).any()


@pytest.mark.parametrize("images", [0, -60, 50, 90])
def test_impossible_arguments(images: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"images must be a multiple of 60 .*, got {images}. Use for example"):
        write_cifar10_sample(tmp_path / "new", images=images)
    assert not (tmp_path / "new").exists()


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample-data", "cifar10", str(tmp_path / "sample"), "--images", "60"]
    assert main(command) == 0
    assert [line.split("]")[0][1:] for line in capsys.readouterr().out.splitlines()] == BATCHES[1:]
    assert main(command) == 1
    assert capsys.readouterr().err.startswith("error: sample data: ")
    assert main([*command, "--overwrite"]) == 0
