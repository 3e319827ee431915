"""Fixtures that several folders share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def metadata_on() -> Iterator[None]:
    """A bundle may switch MONAI's metadata off, for the whole process."""
    from monai.data import set_track_meta

    set_track_meta(True)
    yield
    set_track_meta(True)


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


@pytest.fixture(scope="session")
def hcp_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An HCP sample set not to be written to: 4 subjects, 27 x 32 x 27 voxels of 6.8 mm."""
    from monai_invertible.data import write_hcp_sample

    return write_hcp_sample(tmp_path_factory.mktemp("hcp"), subjects=4, size=32)


@pytest.fixture(scope="session")
def maps_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample set of Maps not to be written to: 4 and 2 pairs (train, val) of 32 x 32."""
    from monai_invertible.data import write_maps_sample

    return write_maps_sample(tmp_path_factory.mktemp("maps"), train=4, val=2, size=32)


@pytest.fixture(scope="session")
def cityscapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample set of Cityscapes not to be written to: 4 and 2 pairs (train, val) of 32 x 32."""
    from monai_invertible.data import write_cityscapes_sample

    return write_cityscapes_sample(tmp_path_factory.mktemp("cityscapes"), train=4, val=2, size=32)


@pytest.fixture(scope="session")
def cifar10_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sample set of CIFAR-10 not to be written to: 100 and 20 images (train, test)."""
    from monai_invertible.data import write_cifar10_sample

    return write_cifar10_sample(tmp_path_factory.mktemp("cifar10"), images=120)
