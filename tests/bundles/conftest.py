"""Fixtures that several tests of the bundles share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bundles.fastmri import BUNDLE, ITERATIONS, TRAINING
from tests.bundles.helper import foreign_directory, workflow


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
