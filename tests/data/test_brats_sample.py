"""The BraTS sample set: BraTS's own format, contrasts in the order that physicians know, nested tumours."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from monai_invertible.data import write_brats_sample
from monai_invertible.data.sample_tissues import random_tissues
from monai_invertible.data.sample_tumour import add_random_tumour

KEYS = ("flair", "t1", "t1ce", "t2", "seg")


def subject(folder: Path, number: int) -> dict[str, np.ndarray]:
    name = f"BraTS20_Training_{number:03d}"
    return {key: np.asarray(nibabel.load(folder / name / f"{name}_{key}.nii.gz").dataobj) for key in KEYS}


def test_format(brats_folder: Path) -> None:
    folders = sorted(path.name for path in brats_folder.iterdir() if path.is_dir())
    assert folders == [f"BraTS20_Training_00{number}" for number in (1, 2, 3, 4)]
    for folder in folders:
        files = sorted((brats_folder / folder).iterdir())
        assert [file.name for file in files] == [f"{folder}_{key}.nii.gz" for key in sorted(KEYS)]
        for file in files:
            image = nibabel.load(file)
            assert image.shape == (48, 48, 31)
            assert image.get_data_dtype() == (np.uint8 if "seg" in file.name else np.int16)
            assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
            assert image.header.get_zooms() == (5.0, 5.0, 5.0) and image.header.get_xyzt_units()[0] == "mm"
            assert image.header["qform_code"] == image.header["sform_code"] == 1


def test_full_size(tmp_path: Path) -> None:
    """The header of the real set: 240 x 240 x 155 of 1 mm, the first voxel at (0, 239, 0) mm."""
    write_brats_sample(tmp_path, subjects=1)
    image = nibabel.load(tmp_path / "BraTS20_Training_001" / "BraTS20_Training_001_t1.nii.gz")
    assert image.shape == (240, 240, 155)
    assert image.affine.tolist() == [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_labels_agree_with_intensities(brats_folder: Path, number: int) -> None:
    """Oedema is bright in FLAIR and T2 and dark in T1; only enhancing tumour is brighter after contrast."""
    images = subject(brats_folder, number)
    label = images["seg"]
    assert np.unique(label).tolist() == [0, 1, 2, 4]
    brain = images["t1"] > 0
    assert not label[~brain].any()  # skull stripped, and the tumour is inside
    for key in ("flair", "t1ce", "t2"):
        np.testing.assert_allclose((images[key] > 0), brain)
    healthy, necrosis, oedema, enhancing = (
        {key: images[key][brain & (label == value)].mean() for key in KEYS} for value in (0, 1, 2, 4)
    )
    assert oedema["flair"] > 1.2 * healthy["flair"] and oedema["t2"] > 1.1 * healthy["t2"]
    assert oedema["t1"] < healthy["t1"] and necrosis["t1"] < oedema["t1"]
    assert necrosis["t2"] > oedema["t2"] and necrosis["flair"] < oedema["flair"]
    assert enhancing["t1ce"] > 1.4 * healthy["t1ce"] and enhancing["t1"] < healthy["t1"]


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_tumour_is_nested(brats_folder: Path, number: int) -> None:
    label = subject(brats_folder, number)["seg"]
    around_necrosis = label[binary_dilation(label == 1) & (label != 1)]
    assert set(around_necrosis) == {4}
    around_core = label[binary_dilation(np.isin(label, (1, 4))) & ~np.isin(label, (1, 4))]
    assert (around_core == 2).mean() > 0.8  # the rest is outside the brain


def test_tumours_are_at_different_places(brats_folder: Path) -> None:
    centres = [np.argwhere(subject(brats_folder, number)["seg"] == 1).mean(axis=0) for number in (1, 2, 3, 4)]
    distances = [np.linalg.norm(a - b) for i, a in enumerate(centres) for b in centres[:i]]
    assert min(distances) > 1.0


def test_a_tumour_replaces_tissue() -> None:
    healthy = random_tissues((48, 48, 31), 5.0, (0.9, 1.0), np.random.default_rng(0))
    fractions = add_random_tumour(healthy, 5.0, np.random.default_rng(1))
    np.testing.assert_allclose(fractions.sum(axis=0), healthy.sum(axis=0), atol=1e-5)
    assert fractions.min() >= 0 and (fractions[:3] <= healthy).all()
    untouched = fractions[3:].sum(axis=0) == 0
    np.testing.assert_array_equal(fractions[:3, untouched], healthy[:, untouched])
