"""The sample sets of BraTS and iSeg alike: same seed same bytes, different subjects, no harm to others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from monai_invertible.__main__ import main
from monai_invertible.data import (
    brats_datalist,
    iseg_datalist,
    write_brats_sample,
    write_fastmri_sample,
    write_iseg_sample,
)
from monai_invertible.data.sample_anatomy import load_scan
from monai_invertible.data.sample_tissues import MRSequence, TissueParameters, random_tissues

Write = Callable[..., Path]
BOTH = pytest.mark.parametrize("write", [write_brats_sample, write_iseg_sample])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@BOTH
def test_the_same_arguments_give_the_same_bytes(tmp_path: Path, write: Write) -> None:
    once, again = (
        contents(write(tmp_path / "a", subjects=1, size=32)),
        contents(write(tmp_path / "b", subjects=1, size=32)),
    )
    more, other = (
        contents(write(tmp_path / "c", subjects=2, size=32)),
        contents(write(tmp_path / "d", subjects=1, size=32, seed=1)),
    )
    assert once == again
    assert once.items() < more.items()
    images = [name for name in once if name.endswith((".nii.gz", ".img"))]
    assert len(images) in (3, 5) and all(once[name] != other[name] for name in images)


@pytest.mark.parametrize("kind", ["brats", "iseg"])
def test_no_two_subjects_are_alike(kind: str, request: pytest.FixtureRequest) -> None:
    """In shape: their brains overlap much (one template) but differ in a good part of their surface."""
    items = {"brats": brats_datalist, "iseg": iseg_datalist}[kind](request.getfixturevalue(f"{kind}_folder"))
    brains = [np.asarray(nibabel.load(item["image"][0]).dataobj) > 0 for item in items]
    for i, a in enumerate(brains):
        for b in brains[:i]:
            assert 0.6 < 2 * (a & b).sum() / (a.sum() + b.sum()) < 0.97


@pytest.mark.parametrize("kind", ["brats", "iseg"])
def test_orientation_is_that_of_the_affine(kind: str, request: pytest.FixtureRequest) -> None:
    """After turning to RAS, the CSF of the mean subject looks like the template's, and not like its mirror images."""
    folder, voxel = request.getfixturevalue(f"{kind}_folder"), {"brats": 5.0, "iseg": 256 / 48}[kind]
    items = {"brats": brats_datalist, "iseg": iseg_datalist}[kind](folder)
    brains = [np.asarray(nibabel.as_closest_canonical(nibabel.load(item["image"][0])).dataobj) > 0 for item in items]
    mean = np.mean(brains, axis=0)
    scale = {"brats": 0.94, "iseg": 0.78}[kind]
    points = [((np.arange(n) - (n - 1) / 2) * voxel / scale) for n in mean.shape]
    brain = load_scan("t1", order=1) > 0
    centre = (np.argwhere(brain).min(axis=0) + np.argwhere(brain).max(axis=0)) / 2
    index = np.ix_(
        *(np.clip(np.rint(p + c), 0, n - 1).astype(int) for p, c, n in zip(points, centre, brain.shape, strict=True))
    )
    template = brain[index].astype(float)
    correct = np.corrcoef(template.ravel(), mean.ravel())[0, 1]
    assert correct > 0.9
    for axis in (1, 2):  # the template is the same left and right
        assert np.corrcoef(np.flip(template, axis).ravel(), mean.ravel())[0, 1] < correct - 0.02


def test_fractions_sum_to_one_in_the_brain() -> None:
    fractions = random_tissues((40, 48, 40), 4.0, (0.9, 1.0), np.random.default_rng(0))
    total = fractions.sum(axis=0)
    assert fractions.dtype == np.float32 and fractions.min() >= 0
    assert np.allclose(total[total > 0], 1.0, atol=1e-5) and 0.15 < (total > 0).mean() < 0.6
    assert not total[0].any() and not total[:, 0].any()  # nothing is cut off at the sides


def test_signal_equations() -> None:
    water = TissueParameters(1.0, 4.0, 2.0)
    assert MRSequence(1e6, 0.0).signal(water) == pytest.approx(1.0)  # fully relaxed: the proton density
    assert MRSequence(4.0, 2.0).signal(water) == pytest.approx((1 - np.exp(-1)) * np.exp(-1))
    null = 4.0 * np.log(2.0)  # the inversion time that nulls a tissue
    assert MRSequence(1e6, 0.0, null).signal(water) == pytest.approx(0.0, abs=1e-12)


@BOTH
def test_a_folder_of_others_is_never_touched(tmp_path: Path, write: Write) -> None:
    folder = tmp_path / "BraTS20_Training_001"
    folder.mkdir()
    precious = [folder / "BraTS20_Training_001_t1.nii.gz", tmp_path / "subject-1-T1.img"]
    for path in precious:
        path.write_text("months of scanning")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="is not empty and was not written by this command"):
            write(tmp_path, overwrite=overwrite)
    assert all(path.read_text() == "months of scanning" for path in precious) and len(list(tmp_path.rglob("*"))) == 3


@BOTH
def test_another_sample_set_is_never_touched(tmp_path: Path, write: Write) -> None:
    write_fastmri_sample(tmp_path, train=1, val=0, test=0, slices=1, size=16)
    before = contents(tmp_path)
    with pytest.raises(
        FileExistsError, match="holds another sample set .\"Sample data in fastMRI's single-coil format"
    ):
        write(tmp_path, overwrite=True)
    assert contents(tmp_path) == before


@BOTH
def test_overwrite_replaces_all_subjects_and_nothing_else(tmp_path: Path, write: Write) -> None:
    old, fresh = tmp_path / "old", tmp_path / "fresh"
    write(old, subjects=2, size=32)
    (old / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds a sample set already.*--overwrite"):
        write(old, subjects=1, size=32)
    write(old, subjects=1, size=32, overwrite=True)
    assert (old / "notes.txt").read_text() == "mine"
    (old / "notes.txt").unlink()
    assert contents(old) == contents(write(fresh, subjects=1, size=32))
    assert len(list(old.rglob("*"))) == len(list(fresh.rglob("*")))  # no empty folder


@BOTH
@pytest.mark.parametrize("options", [{"size": 31}, {"subjects": 0}])
def test_impossible_arguments(tmp_path: Path, write: Write, options: dict[str, int]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"{write.__name__}: size must be at least 32 .*{name}={value}.*size=48"):
        write(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("kind", "first"), [("brats", "BraTS20_Training_001"), ("iseg", "subject-1")])
def test_command_line(tmp_path: Path, kind: str, first: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample-data", kind, str(tmp_path / "sample"), "--subjects", "2", "--size", "32"]
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["[1/2]", "[2/2]"] and printed[0].endswith(first)
    assert main(command) == 1
    assert capsys.readouterr().err.startswith("error: sample data: ")
    assert main([*command, "--overwrite"]) == 0


@BOTH
def test_global_random_state_is_left_alone(tmp_path: Path, write: Write) -> None:
    np.random.seed(0)
    before: Any = np.random.get_state()[1].copy()
    write(tmp_path, subjects=1, size=32)
    np.testing.assert_array_equal(before, np.random.get_state()[1])
