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
