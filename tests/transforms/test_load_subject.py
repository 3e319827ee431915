"""Loading subjects: NIfTI, Analyze and DICOM, the way back to a file, and every bad input by name."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import Dataset, MetaTensor, ThreadDataLoader, decollate_batch, list_data_collate
from monai.transforms import Compose, Invertd, Orientationd, SaveImaged, Spacingd

from monai_invertible.data import brats_datalist, iseg_datalist
from monai_invertible.transforms import LoadSubjectd

Item = dict[str, Any]
BRATS_LABELS, ISEG_LABELS = (0, 1, 2, 4), (0, 10, 150, 250)


@pytest.fixture
def item(brats_folder: Path, tmp_path: Path) -> Item:
    """One BraTS subject, free to be damaged."""
    name = "BraTS20_Training_002"
    shutil.copytree(brats_folder / name, tmp_path / "brats" / name)
    return brats_datalist(tmp_path / "brats")[0]


def rewrite(path: str, array: Any = None, affine: Any = None) -> None:
    """Save the image again with other voxels or another affine."""
    image = nibabel.load(path)
    data = np.asarray(image.dataobj) if array is None else array
    nibabel.save(nibabel.Nifti1Image(data, image.affine if affine is None else affine), path)


def write_dicom(folder: Path, volume: np.ndarray, spacing: tuple[float, ...], series: str = "1.2.826.7") -> None:
    """An axial series of int16 (x, y, z) as a scanner sends it: one file a slice, axes to the left and backwards."""
    import SimpleITK as sitk

    folder.mkdir(parents=True, exist_ok=True)
    for index in range(volume.shape[2]):
        image = sitk.GetImageFromArray(volume[..., index].T.astype(np.int16))
        image.SetSpacing(spacing[:2])
        tags = {
            "0008|0060": "MR",
            "0008|0018": f"{series}.{index + 1}",
            "0020|000d": "1.2.826.6",
            "0020|000e": series,
            "0020|0013": str(index + 1),
            "0020|0032": f"-10\\-20\\{index * spacing[2]}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{series}-{index:03d}.dcm"))
        writer.Execute(image)


def test_brats(brats_folder: Path) -> None:
    item = LoadSubjectd(label_values=BRATS_LABELS)(brats_datalist(brats_folder)[1])
    name = "BraTS20_Training_002"
    assert isinstance(item["image"], MetaTensor) and isinstance(item["label"], MetaTensor)
    assert item["image"].dtype == item["label"].dtype == torch.float32
    for channel, key in enumerate(("flair", "t1", "t1ce", "t2")):
        file = nibabel.load(brats_folder / name / f"{name}_{key}.nii.gz")
        np.testing.assert_array_equal(item["image"][channel].numpy(), np.asarray(file.dataobj))
        np.testing.assert_array_equal(item["image"].affine.numpy(), file.affine)
    label = nibabel.load(brats_folder / name / f"{name}_seg.nii.gz")
    np.testing.assert_array_equal(item["label"].numpy(), np.asarray(label.dataobj)[None])
    assert item["subject"] == name


def test_iseg(iseg_folder: Path) -> None:
    """Analyze has no orientation: nibabel's convention, LAS with the origin in the middle."""
    item = LoadSubjectd(label_values=ISEG_LABELS)(iseg_datalist(iseg_folder)[0])
    assert item["image"].shape == (2, 27, 36, 48) and item["label"].shape == (1, 27, 36, 48)
    assert nibabel.aff2axcodes(item["image"].affine.numpy()) == ("L", "A", "S")
    middle = item["image"].affine.numpy() @ [13.0, 17.5, 23.5, 1.0]
    np.testing.assert_allclose(middle[:3], 0.0, atol=1e-3)
    np.testing.assert_allclose(item["image"].pixdim, 256 / 48, rtol=1e-6)


def test_a_fourth_dimension_of_one_is_dropped(item: Item) -> None:
    before = LoadSubjectd()(item)["image"]
    path = item["image"][1]
    rewrite(path, np.asarray(nibabel.load(path).dataobj)[..., None])
    assert torch.equal(LoadSubjectd()(item)["image"], before)


def test_without_label(item: Item) -> None:
    del item["label"]
    loaded = LoadSubjectd(label_values=BRATS_LABELS)(item)
    assert set(loaded) == {"image", "subject"} and loaded["image"].shape == (4, 48, 48, 31)


def test_one_path_and_no_name(item: Item) -> None:
    loaded = LoadSubjectd()({"image": item["image"][2]})
    assert loaded["image"].shape == (1, 48, 48, 31)
    assert Path(loaded["image"].meta["filename_or_obj"]).name == "BraTS20_Training_002_t1ce.nii.gz"


def test_a_label_without_foreground_is_allowed(item: Item) -> None:
    rewrite(item["label"], np.zeros((48, 48, 31), dtype=np.uint8))
    assert not LoadSubjectd(label_values=BRATS_LABELS)(item)["label"].any()


@pytest.mark.parametrize("kind", ["brats", "iseg"])
def test_a_prediction_returns_to_the_grid_of_its_file(
    kind: str, brats_folder: Path, iseg_folder: Path, tmp_path: Path
) -> None:
    """Orientation and spacing are changed, inverted, and the label is saved under the subject's name: it lies exactly
    on the original one."""
    original = brats_datalist(brats_folder)[2] if kind == "brats" else iseg_datalist(iseg_folder)[2]
    transform = Compose(
        [
            LoadSubjectd(),
            Orientationd(("image", "label"), axcodes="RAS", labels=None),
            Spacingd(("image", "label"), pixdim=(2.5, 2.5, 2.5), mode=("bilinear", "nearest")),
        ]
    )
    item = transform(original)
    assert item["image"].shape[1] > 50
    item["pred"] = MetaTensor(item["label"].as_tensor(), meta=item["image"].meta)
    item = Invertd("pred", transform, "image", nearest_interp=True, to_tensor=True)(item)
    SaveImaged("pred", output_dir=tmp_path, output_postfix="seg", separate_folder=False, print_log=False)(item)
    saved = nibabel.load(tmp_path / f"{original['subject']}_seg.nii.gz")
    label = nibabel.load(original["label"])
    np.testing.assert_allclose(saved.affine, label.affine, atol=1e-4)
    assert (np.asarray(saved.dataobj) == np.asarray(label.dataobj)).mean() > 0.99


def test_batches_mix_formats_and_workers(brats_folder: Path, tmp_path: Path) -> None:
    first, second = brats_datalist(brats_folder)[:2]
    for key, path in zip(("flair", "t1", "t1ce", "t2"), second["image"], strict=True):
        array = np.asarray(nibabel.load(path).dataobj)
        write_dicom(tmp_path / "case" / f"case_{key}", array, (5.0, 5.0, 5.0))
    (dicom,) = brats_datalist(tmp_path, labels=False)
    del first["label"]
    load = pickle.loads(pickle.dumps(LoadSubjectd()))
    loader = ThreadDataLoader(Dataset([first, dicom], load), batch_size=2, collate_fn=list_data_collate)
    items = decollate_batch(next(iter(loader)))
    np.testing.assert_array_equal(items[1]["image"].numpy(), LoadSubjectd()(second)["image"].numpy())
    np.testing.assert_array_equal(items[0]["image"].affine.numpy(), nibabel.load(first["image"][0]).affine)


def test_dicom_series(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 1000, (6, 5, 4))
    for modality in ("T1", "T2"):
        write_dicom(tmp_path / f"baby-{modality}", volume, (1.0, 2.0, 3.0))
    (item,) = iseg_datalist(tmp_path, labels=False)
    image = LoadSubjectd()(item)["image"]
    np.testing.assert_array_equal(image.numpy(), np.stack([volume, volume]))
    assert image.affine.tolist() == [[-1, 0, 0, 10], [0, -2, 0, 20], [0, 0, 3, 0], [0, 0, 0, 1]]  # RAS


def test_bad_dicom_series(tmp_path: Path) -> None:
    volume = np.zeros((6, 5, 4))
    for name in ("gap", "two", "none"):
        write_dicom(tmp_path / name, volume, (1.0, 2.0, 3.0))
    next((tmp_path / "gap").glob("*-002.dcm")).unlink()
    with pytest.raises(
        ValueError, match="gap: the slices of a DICOM series must be evenly spaced, got gaps .subject 7"
    ):
        LoadSubjectd()({"image": tmp_path / "gap", "subject": "7"})
    broken = next((tmp_path / "two").glob("*-001.dcm"))
    write_dicom(tmp_path / "two", volume, (1.0, 2.0, 3.0), series="1.2.826.8")
    with pytest.raises(ValueError, match="two: a folder must hold one DICOM series, got 2 .subject 7"):
        LoadSubjectd()({"image": tmp_path / "two", "subject": "7"})
    for path in (tmp_path / "none").iterdir():
        path.write_text("not DICOM")
    with pytest.raises(ValueError, match="none: a folder must hold one DICOM series, got 0 .subject 7"):
        LoadSubjectd()({"image": tmp_path / "none", "subject": "7"})
    for path in (tmp_path / "two").glob("1.2.826.8*"):
        path.unlink()
    broken.write_bytes(broken.read_bytes()[:-10])  # read as missing by ITK, without an error
    with pytest.raises(ValueError, match="two: the slices .* export the series again"):
        LoadSubjectd()({"image": tmp_path / "two", "subject": "7"})


def test_dicom_without_itk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "itk", None)
    with pytest.raises(ImportError, match="reading a DICOM series .subject 7. needs itk, got none. pip install itk"):
        LoadSubjectd()({"image": tmp_path, "subject": "7"})


def fails(item: Item, error: type[Exception], message: str, **options: Any) -> None:
    with pytest.raises(error, match=message) as raised:
        LoadSubjectd(**options)(item)
    assert "BraTS20_Training_002" in str(raised.value)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated_file(item: Item, keep: float) -> None:
    path = Path(item["image"][2])
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    fails(item, OSError, "t1ce.nii.gz: this image of subject BraTS20_Training_002 cannot be read .*fetch it again")


def test_truncated_analyze(iseg_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(iseg_folder, tmp_path / "iseg")
    items = iseg_datalist(tmp_path / "iseg")
    path = tmp_path / "iseg" / "subject-1-T2.img"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        OSError, match="subject-1-T2.hdr: this image of subject subject-1 cannot be read .*fetch it again"
    ):
        LoadSubjectd()(items[0])
    (tmp_path / "iseg" / "subject-2-T1.img").unlink()
    with pytest.raises(OSError, match="subject-2-T1.hdr: this image of subject subject-2 cannot be read"):
        LoadSubjectd()(items[1])


def test_file_that_disappears(item: Item) -> None:
    Path(item["label"]).unlink()
    fails(item, FileNotFoundError, "seg.nii.gz: this image of subject BraTS20_Training_002 does not exist")


def test_modality_of_another_shape(item: Item) -> None:
    rewrite(item["image"][3], np.zeros((48, 48, 30), dtype=np.int16))
    fails(
        item,
        ValueError,
        r"t2.nii.gz: .* one shape, got \(48, 48, 30\), and \(48, 48, 31\) in .*flair.nii.gz .*Resample",
    )


def test_label_of_another_shape(item: Item) -> None:
    rewrite(item["label"], np.zeros((48, 47, 31), dtype=np.uint8))
    fails(
        item,
        ValueError,
        r"seg.nii.gz: .* one shape, got \(48, 47, 31\), and \(48, 48, 31\) in .*flair.nii.gz .*Resample",
    )


@pytest.mark.parametrize("which", ["label", 1])
def test_another_affine(item: Item, which: Any) -> None:
    path = item["label"] if which == "label" else item["image"][which]
    affine = nibabel.load(path).affine
    shifted = affine.copy()
    shifted[2, 3] += 0.4  # of 5 mm: rounding of a header
    rewrite(path, affine=shifted)
    LoadSubjectd()(item)
    shifted[2, 3] += 4.6
    rewrite(path, affine=shifted)
    fails(item, ValueError, "must have one affine, got corners 5 mm away from those of .*flair.nii.gz .*copy the other")
    rewrite(path, affine=np.diag([5.0, 5.0, 5.0, 1.0]))  # what a careless tool writes
    fails(item, ValueError, "must have one affine, got corners .* mm away")


def test_labels_outside_label_values(item: Item) -> None:
    label = np.asarray(nibabel.load(item["label"]).dataobj).copy()
    label[label == 4] = 3
    rewrite(item["label"], label)
    fails(item, ValueError, r"labels must be among \[0, 1, 2, 4\], got \[0, 1, 2, 3\]", label_values=BRATS_LABELS)
    LoadSubjectd()(item)
    rewrite(item["label"], np.arange(48 * 48 * 31, dtype=np.float32).reshape(48, 48, 31) / 2)
    fails(item, ValueError, r"got \[0, 0.5, 1, .*4.5, ... \(71424 values\)\]", label_values=BRATS_LABELS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["label", 0, 2])
def test_voxels_that_are_not_finite(item: Item, value: float, which: Any) -> None:
    path = item["label"] if which == "label" else item["image"][which]
    array = np.asarray(nibabel.load(path).dataobj).astype(np.float32)
    array[3, 4, 5:7] = value
    rewrite(path, array)
    fails(item, ValueError, f"{Path(path).name}: voxels must be finite, got 2 that are NaN or infinite")


def test_several_volumes_in_a_file(item: Item) -> None:
    rewrite(item["image"][0], np.zeros((48, 48, 31, 2), dtype=np.int16))
    fails(item, ValueError, r"flair.nii.gz: an image must be one 3D volume, got shape \(48, 48, 31, 2\)")
