"""Fixtures that several tests of the bundles share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles.fastmri import BUNDLE, ITERATIONS, TRAINING
from tests.bundles.helper import foreign_directory, workflow
from tests.bundles.invres import Invres


@pytest.fixture(scope="session")
def fastmri_trained(fastmri_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the bundle was trained for two epochs. Not to be written to."""
    with foreign_directory(tmp_path_factory.mktemp("trained")) as folder:
        flow = workflow(BUNDLE, "train", "small", "quick", dataset_dir=fastmri_folder, **TRAINING)
        assert flow.check_properties() == []
        flow.run()
        flow.finalize()
        assert flow.trainer.state.epoch == 2 and flow.trainer.state.iteration == 2 * ITERATIONS
        return folder


@pytest.fixture
def fastmri_here(fastmri_trained: Path, tmp_path: Path) -> Iterator[Path]:
    """The current directory: a copy of ``fastmri_trained``."""
    shutil.copytree(fastmri_trained, tmp_path, dirs_exist_ok=True)
    with foreign_directory(tmp_path):
        yield tmp_path


@pytest.fixture(scope="session", params=["brats", "iseg"])
def invres(request: pytest.FixtureRequest) -> Invres:
    """The one segmentation bundle, and the other."""
    data = request.getfixturevalue(f"{request.param}_folder")
    if request.param == "brats":
        classes, name = {"TC": [1, 4], "WT": [1, 2, 4], "ET": [4]}, "{0}/{0}_"
        return Invres("brats", data, classes, {0, 1, 2, 4}, name + "flair.nii.gz", name + "seg.nii.gz")
    classes = {"CSF": [10], "GM": [150], "WM": [250]}
    return Invres("iseg", data, classes, {0, 10, 150, 250}, "{0}-T1.hdr", "{0}-label.hdr")


@pytest.fixture(scope="session")
def invres_trained(invres: Invres, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the bundle was trained for two epochs. Not to be written to."""
    with foreign_directory(tmp_path_factory.mktemp("trained")) as folder:
        flow = workflow(invres.bundle, "train", "quick", **invres.training)
        assert flow.check_properties() == []
        flow.run()
        flow.finalize()
        assert flow.trainer.state.epoch == 2 and flow.trainer.state.iteration == 2 * invres.iterations
        assert flow.evaluator.state.metrics.keys() == {"dice", *(f"dice_{name}" for name in invres.classes)}
        return folder


@pytest.fixture
def invres_here(invres_trained: Path, tmp_path: Path) -> Iterator[Path]:
    """The current directory: a copy of ``invres_trained``."""
    shutil.copytree(invres_trained, tmp_path, dirs_exist_ok=True)
    with foreign_directory(tmp_path):
        yield tmp_path
