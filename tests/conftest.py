"""Fixtures that several folders share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fastmri_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fastMRI sample set not to be written to: 2, 1 and 2 subjects (train, val, test) of 3 slices, 32 x 32."""
    from monai_invertible.data import write_fastmri_sample

    folder = tmp_path_factory.mktemp("fastmri")
    write_fastmri_sample(folder, train=2, val=1, test=2, slices=3, size=32)
    return folder


@pytest.fixture(scope="session")
def brats_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BraTS sample set not to be written to: 4 subjects, 48 x 48 x 31 voxels of 5 mm."""
    from monai_invertible.data import write_brats_sample

    return write_brats_sample(tmp_path_factory.mktemp("brats"), subjects=4, size=48)


@pytest.fixture(scope="session")
def iseg_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An iSeg sample set not to be written to: 4 subjects, 27 x 36 x 48 voxels of 5.33 mm."""
    from monai_invertible.data import write_iseg_sample

    return write_iseg_sample(tmp_path_factory.mktemp("iseg"), subjects=4, size=48)
