"""Loading slices and volumes of fastMRI files, single-coil and multi-coil."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader

from monai_invertible.data import fastmri_datalist
from monai_invertible.transforms import LoadFastMRId


@pytest.fixture
def multicoil(fastmri_folder: Path, tmp_path: Path) -> Path:
    """A multi-coil volume: coil c sees (c + 1) times the single-coil data."""
    path = Path(shutil.copy(fastmri_folder / "singlecoil_val" / "file2000000.h5", tmp_path))
    with h5py.File(path, "a") as file:
        kspace = file["kspace"][()]
        del file["kspace"]
        file["kspace"] = np.stack([kspace, 2 * kspace, 3 * kspace], axis=1)
        file["reconstruction_rss"] = np.sqrt(14.0).astype(np.float32) * file["reconstruction_esc"][()]
    return path


def test_slice(fastmri_folder: Path) -> None:
    item = LoadFastMRId()(fastmri_datalist(fastmri_folder / "singlecoil_val")[1])
    with h5py.File(fastmri_folder / "singlecoil_val" / "file2000000.h5") as file:
        kspace, reference = file["kspace"][1], file["reconstruction_esc"][1]
    assert item["kspace"].dtype == item["reference"].dtype == torch.float32
    np.testing.assert_array_equal(torch.view_as_complex(item["kspace"]).numpy(), kspace[None])
    np.testing.assert_array_equal(item["reference"].numpy(), reference[None])
    assert "mask" not in item and item["slice_index"] == 1


def test_volume_is_its_slices(fastmri_folder: Path) -> None:
    folder, load = fastmri_folder / "singlecoil_test", LoadFastMRId()
    volume = load(fastmri_datalist(folder, "volume")[0])
    slices = [load(item) for item in fastmri_datalist(folder)[:3]]
    assert torch.equal(volume["kspace"], torch.stack([item["kspace"] for item in slices], dim=1))
    columns = volume["kspace"].shape[-2]
    assert volume["mask"].shape == (1, 1, 1, columns, 1) and slices[0]["mask"].shape == (1, 1, columns, 1)
    assert torch.equal(volume["mask"][0], slices[0]["mask"])
    assert torch.equal(volume["kspace"] * volume["mask"], volume["kspace"]) and "reference" not in volume


def test_multicoil(multicoil: Path) -> None:
    load = LoadFastMRId()
    volume = load(fastmri_datalist(multicoil.parent, "volume")[0])
    item = load(fastmri_datalist(multicoil.parent)[2])
    assert volume["kspace"].shape[:2] == (3, 3) and item["kspace"].shape[0] == 3
    assert torch.equal(volume["kspace"][:, 2], item["kspace"])
    torch.testing.assert_close(item["kspace"][2], 3 * item["kspace"][0])
    with h5py.File(multicoil) as file:
        np.testing.assert_array_equal(item["reference"][0].numpy(), file["reconstruction_rss"][2])


def test_not_finite(multicoil: Path) -> None:
    with h5py.File(multicoil, "a") as file:
        file["kspace"][1, 0, 3, 3] = np.nan
    items = fastmri_datalist(multicoil.parent)
    LoadFastMRId()(items[0])
    with pytest.raises(ValueError, match="file2000000.h5: k-space must be finite, got NaN or Inf in slice 1"):
        LoadFastMRId()(items[1])


def test_file_that_disappears(multicoil: Path) -> None:
    items = fastmri_datalist(multicoil.parent)
    multicoil.unlink()
    with pytest.raises(FileNotFoundError, match="file2000000.h5.*No such file"):
        LoadFastMRId()(items[0])


def test_collates_in_worker_processes(fastmri_folder: Path) -> None:
    load = pickle.loads(pickle.dumps(LoadFastMRId()))
    dataset = CacheDataset(fastmri_datalist(fastmri_folder / "singlecoil_val"), load, cache_rate=0.0, progress=False)
    batch = next(iter(DataLoader(dataset, batch_size=3, num_workers=1)))
    assert batch["kspace"].shape[:2] == (3, 1) and batch["reference"].shape == (3, 1, 32, 32)
    assert batch["slice_index"].tolist() == [0, 1, 2] and batch["filename"] == ["file2000000.h5"] * 3
    assert batch["recon_size"].tolist() == [[32, 32]] * 3 and batch["spacing"].shape == (3, 3)
