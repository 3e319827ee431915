"""The data lists of BraTS and iSeg folders: what they say of good ones, splits, and how they refuse bad ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_invertible.data import brats_datalist, iseg_datalist

BOTH = pytest.mark.parametrize("datalist", [brats_datalist, iseg_datalist])
Datalist = Callable[..., list[dict[str, Any]]]


def subjects(items: list[dict[str, Any]]) -> list[str]:
    return [item["subject"] for item in items]


def make(folder: Path, datalist: Datalist, names: list[str], label: bool = True, suffix: str = ".nii.gz") -> Path:
    """Empty files with the right names."""
    brats = datalist is brats_datalist
    modalities = ("flair", "t1", "t1ce", "t2") if brats else ("T1", "T2")
    for name in names:
        for modality in (*modalities, *((("seg" if brats else "label"),) if label else ())):
            path = folder / name / f"{name}_{modality}{suffix}" if brats else folder / f"{name}-{modality}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return folder


def test_brats_items(brats_folder: Path) -> None:
    items = brats_datalist(brats_folder)
    assert subjects(items) == [f"BraTS20_Training_00{number}" for number in (1, 2, 3, 4)]
    for item in items:
        stem = f"{brats_folder / item['subject'] / item['subject']}_"
        assert item["image"] == [f"{stem}{modality}.nii.gz" for modality in ("flair", "t1", "t1ce", "t2")]
        assert item["label"] == f"{stem}seg.nii.gz"
    assert json.loads(json.dumps(items)) == items


def test_iseg_items(iseg_folder: Path) -> None:
    items = iseg_datalist(iseg_folder)
    assert items[0] == {
        "image": [str(iseg_folder / "subject-1-T1.hdr"), str(iseg_folder / "subject-1-T2.hdr")],
        "label": str(iseg_folder / "subject-1-label.hdr"),
        "subject": "subject-1",
    }
    assert subjects(items) == [f"subject-{number}" for number in (1, 2, 3, 4)]


@BOTH
def test_numbers_sort_by_value(tmp_path: Path, datalist: Datalist) -> None:
    make(tmp_path, datalist, ["subject-10", "subject-9", "subject-1"])
    assert subjects(datalist(tmp_path)) == ["subject-1", "subject-9", "subject-10"]


@BOTH
def test_splits_are_disjoint_and_complete(tmp_path: Path, datalist: Datalist) -> None:
    make(tmp_path, datalist, [f"subject-{number}" for number in range(1, 11)])
    names = subjects(datalist(tmp_path))
    for folds in (2, 3, 5, 10):
        held_out = []
        for fold in range(folds):
            training = subjects(datalist(tmp_path, "training", fold=fold, folds=folds))
            validation = subjects(datalist(tmp_path, "validation", fold=fold, folds=folds))
            assert sorted(training + validation) == sorted(names) and not set(training) & set(validation)
            assert 10 // folds <= len(validation) <= -(-10 // folds)
            held_out += validation
        assert sorted(held_out) == sorted(names)  # each subject is validated once
    assert len(brats_datalist(make(tmp_path, brats_datalist, names), "validation")) == 2  # 80 to 20
    assert len(iseg_datalist(make(tmp_path, iseg_datalist, names), "validation")) == 1  # leave one out


@BOTH
def test_splits_depend_on_names_and_seed_only(tmp_path: Path, datalist: Datalist) -> None:
    names = [f"subject-{number}" for number in range(1, 21)]
    one, other = make(tmp_path / "one", datalist, names), make(tmp_path / "other", datalist, names[::-1], label=False)
    split = [subjects(datalist(one, "validation", fold=fold, folds=5)) for fold in range(5)]
    assert split == [subjects(datalist(other, "validation", fold=fold, folds=5, labels=False)) for fold in range(5)]
    assert split != [subjects(datalist(one, "validation", fold=fold, folds=5, seed=1)) for fold in range(5)]


@BOTH
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", "/0001.dcm"])
def test_other_formats(tmp_path: Path, datalist: Datalist, suffix: str) -> None:
    if suffix.startswith("/"):  # a folder of one DICOM series
        make(tmp_path, datalist, ["case.7"], label=False, suffix="")
        for file in [path for path in tmp_path.rglob("*") if path.is_file()]:
            file.unlink()
            file.mkdir()
            (file / "0001.dcm").touch()
        suffix = ""
    else:
        make(tmp_path, datalist, ["case.7"], label=False, suffix=suffix)
    (item,) = datalist(tmp_path, labels=False)
    assert item["subject"] == "case.7" and set(item) == {"image", "subject"}
    assert all(Path(path).exists() and path.endswith(f"{suffix}") for path in item["image"])


@BOTH
def test_other_files_are_ignored(tmp_path: Path, datalist: Datalist) -> None:
    make(tmp_path, datalist, ["subject-1", "subject-2"])
    for name in (".DS_Store", "name_mapping.csv", "._subject-3-T1.hdr", "SAMPLE_DATA.md"):
        (tmp_path / name).touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "predictions").mkdir()
    assert subjects(datalist(tmp_path)) == ["subject-1", "subject-2"]


@BOTH
def test_missing_folder(tmp_path: Path, datalist: Datalist) -> None:
    with pytest.raises(
        FileNotFoundError, match=rf"{datalist.__name__}: folder .*nowhere does not exist. Give the folder"
    ):
        datalist(tmp_path / "nowhere")


@BOTH
def test_no_subjects(tmp_path: Path, datalist: Datalist) -> None:
    with pytest.raises(
        ValueError, match=rf"{datalist.__name__}: folder .* must hold .* got no subject. Give the folder"
    ):
        datalist(tmp_path)
    make(tmp_path / "inside", datalist, ["subject-1"])
    with pytest.raises(ValueError, match="got no subject. Did you mean .*inside"):
        datalist(tmp_path)


@pytest.mark.parametrize(
    ("datalist", "missing"),
    [(brats_datalist, "BraTS20_Training_003/BraTS20_Training_003_t1ce"), (iseg_datalist, "subject-3-T2")],
)
def test_missing_modality(
    brats_folder: Path, iseg_folder: Path, tmp_path: Path, datalist: Datalist, missing: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(brats_folder if datalist is brats_datalist else iseg_folder, copy)
    for path in copy.glob(f"{missing}.*"):
        path.unlink()
    subject, name = missing.partition("/")[0].removesuffix("-T2"), Path(missing).name
    with pytest.raises(FileNotFoundError, match=rf"subject {subject} has no {name} \(.nii.gz.*\), got \[.*Complete .*"):
        datalist(copy)


def test_missing_voxels_of_an_analyze_image(iseg_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(iseg_folder, copy)
    (copy / "subject-2-T1.img").unlink()
    with pytest.raises(FileNotFoundError, match="subject subject-2 has subject-2-T1.hdr but no subject-2-T1.img"):
        iseg_datalist(copy)


@BOTH
def test_missing_label(tmp_path: Path, datalist: Datalist) -> None:
    """As in one distribution of BraTS 2020, where the label of one subject has another name."""
    make(tmp_path, datalist, ["subject-1"], label=False)
    with pytest.raises(FileNotFoundError, match=r"has no subject-1[-_](seg|label) .*rename the file; labels=False"):
        datalist(tmp_path)
    assert subjects(datalist(tmp_path, labels=False)) == ["subject-1"]


@BOTH
def test_impossible_sections(tmp_path: Path, datalist: Datalist) -> None:
    make(tmp_path, datalist, [f"subject-{number}" for number in range(1, 4)])
    with pytest.raises(ValueError, match="section must be one of 'training', 'validation', 'all', got 'test'"):
        datalist(tmp_path, "test")
    for folds in (1, 4):
        with pytest.raises(ValueError, match=f"folds must be 2 to the number of subjects, 3, got {folds}. Use fewer"):
            datalist(tmp_path, "training", folds=folds)
    for fold in (-1, 3):
        with pytest.raises(ValueError, match=f"fold must be 0 to 2, got {fold}"):
            datalist(tmp_path, "training", fold=fold, folds=3)
