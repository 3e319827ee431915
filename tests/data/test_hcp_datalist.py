"""Lists of HCP folders: what is found, how subjects are split, and what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from monai_invertible.data import hcp_datalist


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


SIGNAL = ("data.nii.gz", "bvals", "bvecs", "nodif_brain_mask.nii.gz")


def test_items(tmp_path: Path) -> None:
    touch(tmp_path / "100307" / "T1w" / "Diffusion", *SIGNAL, "grad_dev.nii.gz")
    touch(tmp_path / "20", *SIGNAL, "dti_tensor.nii.gz")
    touch(tmp_path / "3", "dti_tensor.nii.gz")
    touch(tmp_path / "4", "dti_tensor.nii", "nodif_brain_mask.nii.gz")
    touch(tmp_path / "release-notes", "readme.txt")
    touch(tmp_path, "subjects.csv")
    items = hcp_datalist(tmp_path)
    assert [item["subject"] for item in items] == ["3", "4", "20", "100307"]
    assert [sorted(item) for item in items] == [
        ["subject", "tensor"],
        ["mask", "subject", "tensor"],
        ["bvals", "bvecs", "dwi", "mask", "subject"],
        ["bvals", "bvecs", "dwi", "mask", "subject"],
    ]
    assert items[3]["dwi"] == str(tmp_path / "100307/T1w/Diffusion/data.nii.gz") and json.dumps(items)


def test_split(tmp_path: Path) -> None:
    """The paper's numbers; every subject is once in a validation set."""
    for number in range(15):
        touch(tmp_path / str(100000 + number), "dti_tensor.nii.gz")
    sets = {s: {item["subject"] for item in hcp_datalist(tmp_path, s)} for s in ("all", "training", "validation")}
    assert [len(subjects) for subjects in sets.values()] == [15, 7, 8]
    assert sets["training"] | sets["validation"] == sets["all"] and not sets["training"] & sets["validation"]
    parts = [{item["subject"] for item in hcp_datalist(tmp_path, "validation", folds=4, fold=k)} for k in range(4)]
    assert sum(map(len, parts)) == 15 and set.union(*parts) == sets["all"]


def test_errors(tmp_path: Path, hcp_folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hcp_datalist: folder .*nowhere does not exist"):
        hcp_datalist(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="must hold a folder NAME/T1w/Diffusion.*got no subject. Give the folder"):
        hcp_datalist(tmp_path)
    with pytest.raises(ValueError, match=f"got no subject. Did you mean .*{hcp_folder.name}"):
        hcp_datalist(hcp_folder.parent)
    for options, text in (
        ({"folds": 5}, "folds must be 2 to the number of subjects, 4, got 5"),
        ({"fold": 2}, "got 2"),
    ):
        with pytest.raises(ValueError, match=f"hcp_datalist: .*{text}"):
            hcp_datalist(hcp_folder, "training", **options)
    with pytest.raises(ValueError, match="section must be one of 'training', 'validation', 'all', got 'test'"):
        hcp_datalist(hcp_folder, "test")
    shutil.copytree(hcp_folder / "900001", tmp_path / "900001")
    (tmp_path / "900001/T1w/Diffusion/bvecs").unlink()
    with pytest.raises(FileNotFoundError, match="has data.nii.gz but no bvecs. Complete it"):
        hcp_datalist(tmp_path)
