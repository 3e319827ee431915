"""The sample set: fastMRI's own reader accepts it, its numbers are consistent, and it never harms other files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from monai_invertible.__main__ import main
from monai_invertible.data import write_fastmri_sample
from monai_invertible.data.atomic_path import atomic_path


def read(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {key: file[key][()] for key in file}


def small(folder: Path, **options: int) -> dict[str, dict[str, np.ndarray]]:
    write_fastmri_sample(folder, **{"train": 1, "val": 0, "test": 0, "slices": 2, "size": 16, **options})
    return {path.name: read(path) for path in sorted(folder.glob("*/*.h5"))}


def test_official_reader(fastmri_folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    from fastmri.data.mri_data import SliceDataset

    for split, volumes in (("train", 2), ("val", 1), ("test", 2)):
        dataset = SliceDataset(fastmri_folder / f"singlecoil_{split}", challenge="singlecoil")
        assert len(dataset) == 3 * volumes
        kspace, mask, target, attributes, name, _ = dataset[0]
        rows, columns = kspace.shape
        assert kspace.dtype == np.complex64
        assert attributes["encoding_size"] == (rows, columns, 1) and attributes["recon_size"] == (32, 32, 1)
        assert (attributes["padding_left"], attributes["padding_right"]) == (0, columns)
        assert name.endswith(".h5")
        if split == "test":
            assert target is None and mask.shape == (columns,) and attributes["acceleration"] == 4
        else:
            assert mask is None and target.shape == (32, 32) and target.max() <= attributes["max"]


def test_official_reconstruction(fastmri_folder: Path) -> None:
    """The reference is the magnitude of fastMRI's own inverse FFT, centre-cropped, and the attributes are its norms."""
    import fastmri
    from fastmri.data import transforms

    for path in fastmri_folder.glob("singlecoil_[tv]*a*/*.h5"):
        volume = read(path)
        image = fastmri.complex_abs(fastmri.ifft2c(transforms.to_tensor(volume["kspace"])))
        image = transforms.center_crop(image, (32, 32)).numpy()
        np.testing.assert_allclose(volume["reconstruction_esc"], image, rtol=1e-4, atol=1e-9)
        with h5py.File(path) as file:
            assert file.attrs["max"] == volume["reconstruction_esc"].max()
            assert file.attrs["norm"] == pytest.approx(np.linalg.norm(image), rel=1e-5)


def test_subjects_are_brains_of_different_people(fastmri_folder: Path) -> None:
    """In each image the central fifth is bright and the border is dark; no two subjects are alike."""
    references = [read(path)["reconstruction_esc"] for path in fastmri_folder.glob("singlecoil_[tv]*a*/*.h5")]
    assert len(references) == 3
    for reference in references:
        assert 2e-4 < reference.max() < 7e-4
        assert reference[:, 13:19, 13:19].mean() > 8 * reference[:, 0].mean()
    normalised = [reference / np.linalg.norm(reference) for reference in references]
    for i, a in enumerate(normalised):
        for b in normalised[:i]:
            assert 0.02 < np.linalg.norm(a - b) < 0.6


def test_test_volumes_are_undersampled(fastmri_folder: Path) -> None:
    for path, acceleration in zip(sorted(fastmri_folder.glob("singlecoil_test/*")), (4, 8), strict=True):
        volume = read(path)
        assert set(volume) == {"kspace", "mask", "ismrmrd_header"}
        with h5py.File(path) as file:
            low = file.attrs["num_low_frequency"]
            assert file.attrs["acceleration"] == acceleration and "max" not in file.attrs
        columns = volume["mask"].size
        assert low == round(columns * 0.32 / acceleration)
        start = (columns - low + 1) // 2
        assert volume["mask"][start : start + low].all()
        assert not volume["kspace"][..., volume["mask"] == 0].any()


def test_the_same_arguments_give_the_same_data(tmp_path: Path) -> None:
    once, again = small(tmp_path / "a"), small(tmp_path / "b")
    more, other = small(tmp_path / "c", train=2, val=1), small(tmp_path / "d", seed=1)
    name = "file1000000.h5"
    for key, value in once[name].items():
        np.testing.assert_array_equal(value, again[name][key])
        np.testing.assert_array_equal(value, more[name][key])
    assert len(more) == 3
    assert (
        other[name]["kspace"].shape != once[name]["kspace"].shape
        or (other[name]["kspace"] != once[name]["kspace"]).any()
    )


def test_a_folder_of_others_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "singlecoil_train").mkdir()
    precious = tmp_path / "singlecoil_train" / "file1.h5"
    precious.write_text("months of scanning")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="is not empty and was not written by this command"):
            write_fastmri_sample(tmp_path, overwrite=overwrite)
    assert precious.read_text() == "months of scanning" and len(list(tmp_path.rglob("*"))) == 2


def test_overwrite_replaces_all_subjects(tmp_path: Path) -> None:
    small(tmp_path, train=2)
    with pytest.raises(FileExistsError, match="holds a sample set already.*--overwrite"):
        small(tmp_path)
    assert list(small(tmp_path, overwrite=True)) == ["file1000000.h5"]


def test_impossible_sizes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size must be even and at least 16.*got size=15"):
        write_fastmri_sample(tmp_path / "new", size=15)
    assert not (tmp_path / "new").exists()


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("old")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert [file.read_text() for file in path.parent.iterdir()] == ["old"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample-data", "fastmri", str(tmp_path / "sample"), "--size", "16", "--slices", "1"]
    command += ["--train", "1", "--val", "1", "--test", "1"]
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["[1/3]", "[2/3]", "[3/3]"]
    assert all(Path(line.split()[1]).is_file() for line in printed)
    assert main(command) == 1
    assert capsys.readouterr().err.startswith("error: sample data: ")
    assert main([*command, "--overwrite"]) == 0


def test_missing_images_name_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from monai_invertible.data import sample_anatomy

    monkeypatch.setitem(sample_anatomy._SCANS, "t1", ("no_such_package", "x.nii", (1.0,) * 3, (0.0,) * 3))
    sample_anatomy.load_scan.cache_clear()
    with pytest.raises(FileNotFoundError, match="pip install no_such_package"):
        small(tmp_path)
    sample_anatomy.load_scan.cache_clear()


def test_global_random_states_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    small(tmp_path, test=1)
    assert torch.equal(before[0], torch.random.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])
