"""The iSeg sample set: iSeg's own format, and the contrast of a brain at six months."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.analyze import AnalyzeImage

from monai_invertible.data import write_iseg_sample


def subject(folder: Path, number: int) -> dict[str, np.ndarray]:
    return {k: np.asarray(nibabel.load(folder / f"subject-{number}-{k}.hdr").dataobj) for k in ("T1", "T2", "label")}


def test_format(iseg_folder: Path) -> None:
    names = [f"subject-{n}-{k}.{end}" for n in (1, 2, 3, 4) for k in ("T1", "T2", "label") for end in ("hdr", "img")]
    assert sorted(path.name for path in iseg_folder.iterdir()) == sorted([*names, "SAMPLE_DATA.md"])
    for path in iseg_folder.glob("*.hdr"):
        image = nibabel.load(path)
        assert isinstance(image, AnalyzeImage) and not isinstance(image, nibabel.Nifti1Pair)
        assert image.shape == (27, 36, 48) and path.stat().st_size == 348
        assert image.get_data_dtype() == (np.uint8 if "label" in path.name else np.int16)
        np.testing.assert_allclose(image.header.get_zooms(), 256 / 48)


def test_full_size(tmp_path: Path) -> None:
    write_iseg_sample(tmp_path, subjects=1)
    image = nibabel.load(tmp_path / "subject-1-T1.hdr")
    assert image.shape == (144, 192, 256) and image.header.get_zooms() == (1.0, 1.0, 1.0)
    assert (tmp_path / "subject-1-T1.img").stat().st_size == 144 * 192 * 256 * 2


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_labels_agree_with_intensities(iseg_folder: Path, number: int) -> None:
    """Grey and white matter: nearly equal in T1, apart in T2. CSF: dark in T1, bright in T2."""
    images = subject(iseg_folder, number)
    label = images["label"]
    assert np.unique(label).tolist() == [0, 10, 150, 250]
    np.testing.assert_array_equal(label > 0, images["T1"] > 0)
    csf, grey, white = ({k: images[k][label == value].mean() for k in ("T1", "T2")} for value in (10, 150, 250))
    assert csf["T1"] < 0.9 * grey["T1"] and csf["T2"] > 1.2 * grey["T2"]
    assert abs(grey["T1"] / white["T1"] - 1) < 0.15
    assert grey["T2"] > 1.15 * white["T2"]
    volumes = [(label == value).sum() for value in (10, 150, 250)]
    assert volumes[1] > volumes[2] > volumes[0] > 0.02 * sum(volumes)
