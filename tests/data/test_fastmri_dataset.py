"""The data list of a fastMRI folder: what it says of good files, and how it refuses bad ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from monai_invertible.data import fastmri_datalist, fastmri_masks, parse_ismrmrd_header


@pytest.fixture
def copy(fastmri_folder: Path, tmp_path: Path) -> Path:
    """One test volume (it has a mask), free to be damaged."""
    return Path(shutil.copy(fastmri_folder / "singlecoil_test" / "file3000000.h5", tmp_path / "file7.h5"))


def test_one_item_a_slice(fastmri_folder: Path) -> None:
    items = fastmri_datalist(fastmri_folder / "singlecoil_train")
    assert [(item["filename"], item["slice_index"]) for item in items] == [
        (name, index) for name in ("file1000000.h5", "file1000001.h5") for index in range(3)
    ]
    with h5py.File(items[0]["kspace"]) as file:
        assert items[0]["max"] == file["reconstruction_esc"][()].max()
    assert items[0]["recon_size"] == [32, 32]
    assert items[0]["spacing"] == [6.0, 6.0, 5.0]  # 192 mm over 32 pixels; the distance of the slices
    assert items[0]["acquisition"] == "AXT1"
    assert json.loads(json.dumps(items)) == items


def test_one_item_a_volume(fastmri_folder: Path) -> None:
    items = fastmri_datalist(fastmri_folder / "singlecoil_train", unit="volume")
    assert [(item["slice_index"], item["num_slices"]) for item in items] == [(0, 3), (0, 3)]


def test_volumes_with_few_slices_are_left_out(fastmri_folder: Path) -> None:
    assert len(fastmri_datalist(fastmri_folder / "singlecoil_train", min_slices=3)) == 6
    with pytest.raises(ValueError, match="no volume of .* has 4 slices. Use a smaller min_slices"):
        fastmri_datalist(fastmri_folder / "singlecoil_train", min_slices=4)


def test_unknown_unit(fastmri_folder: Path) -> None:
    with pytest.raises(ValueError, match='unit must be "slice" or "volume", got \'stack\''):
        fastmri_datalist(fastmri_folder / "singlecoil_train", unit="stack")


def test_masks_of_the_test_set(fastmri_folder: Path) -> None:
    masks = fastmri_masks(fastmri_folder / "singlecoil_test")
    items = fastmri_datalist(fastmri_folder / "singlecoil_test", unit="volume")
    for mask, item in zip(masks, items, strict=True):
        with h5py.File(item["kspace"]) as file:
            assert mask.shape == file["kspace"].shape[-1:]
            np.testing.assert_array_equal(mask > 0, np.abs(file["kspace"][()]).sum((0, 1)) > 0)
    with pytest.raises(ValueError, match='no volume of .* has a "mask". Use the folder of the test set'):
        fastmri_masks(fastmri_folder / "singlecoil_val")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere does not exist. Give the folder that holds the .h5 volumes"):
        fastmri_datalist(tmp_path / "nowhere")


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no .h5 file. Give the folder"):
        fastmri_datalist(tmp_path)


def test_parent_folder_names_its_splits(fastmri_folder: Path) -> None:
    with pytest.raises(ValueError, match="Did you mean .*singlecoil_test or .*singlecoil_train or .*singlecoil_val"):
        fastmri_datalist(fastmri_folder)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated_file(copy: Path, keep: float) -> None:
    copy.write_bytes(copy.read_bytes()[: int(keep * copy.stat().st_size)])
    with pytest.raises(OSError, match="file7.h5: the HDF5 file cannot be read .* download it again"):
        fastmri_datalist(copy.parent)


@pytest.mark.parametrize("key", ["kspace", "ismrmrd_header"])
def test_missing_key(copy: Path, key: str) -> None:
    with h5py.File(copy, "a") as file:
        del file[key]
    with pytest.raises(ValueError, match=f'file7.h5: a fastMRI volume must have "{key}", got .*Take the original'):
        fastmri_datalist(copy.parent)


def test_real_kspace(copy: Path) -> None:
    with h5py.File(copy, "a") as file:
        del file["kspace"]
        file["kspace"] = np.zeros((3, 64, 34), dtype=np.float32)
    with pytest.raises(ValueError, match=r"file7.h5: kspace must be complex, .* got float32 \(3, 64, 34\)"):
        fastmri_datalist(copy.parent)


def test_mask_of_another_width(copy: Path) -> None:
    with h5py.File(copy, "a") as file:
        columns = file["mask"].size
        del file["mask"]
        file["mask"] = np.ones(columns + 2, dtype=np.float32)
    with pytest.raises(ValueError, match=f"file7.h5: the mask must have one value a column.*got {columns + 2} for"):
        fastmri_datalist(copy.parent)


HEADER = """<?xml version="1.0"?>{doctype}<ismrmrdHeader{namespace}><encoding><encodedSpace><matrixSize><x>640</x>
<y>372</y><z>1</z></matrixSize></encodedSpace><reconSpace><matrixSize><x>320</x><y>256</y><z>1</z></matrixSize><fieldOfView_mm>
<x>140</x><y>128</y><z>4.5</z></fieldOfView_mm></reconSpace></encoding></ismrmrdHeader>"""


@pytest.mark.parametrize("namespace", ["", ' xmlns="http://www.ismrm.org/ISMRMRD"', ' xmlns="urn:another"'])
def test_header_in_any_namespace(namespace: str) -> None:
    header = HEADER.format(doctype="", namespace=namespace)
    for text in (header, header.encode()):
        assert parse_ismrmrd_header(text) == ([320, 256], [0.4375, 0.5, 4.5])


def test_header_with_entities_is_refused_before_it_is_parsed() -> None:
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    with pytest.raises(ValueError, match="file7: an ISMRMRD header must have no document type"):
        parse_ismrmrd_header(HEADER.format(doctype=bomb, namespace=""), "file7")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</encoding>", "", "must be UTF-8 XML"),
        ("reconSpace", "otherSpace", "positive encoding/reconSpace/matrixSize/x, got None"),
        ("<y>256</y>", "<y>wide</y>", "positive encoding/reconSpace/matrixSize/y, got 'wide'"),
        ("<z>4.5</z>", "<z>0</z>", "positive encoding/reconSpace/fieldOfView_mm/z, got '0'"),
    ],
)
def test_incomplete_header(old: str, new: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"file7: .*{message}"):
        parse_ismrmrd_header(HEADER.format(doctype="", namespace="").replace(old, new), "file7")
