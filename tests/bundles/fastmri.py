"""The fastMRI i-RIM bundle at the smallest size, for the tests of it."""

from __future__ import annotations

from typing import Any

from tests.bundles.helper import ROOT

BUNDLE = ROOT / "bundles" / "fastmri_irim_reconstruction"
TINY: dict[str, Any] = {
    "network_def__steps": 1,
    "network_def__channels": 4,
    "network_def__hidden_channels": 4,
    "network_def__downsample": [1, 2],
}
TRAINING: dict[str, Any] = {
    **TINY,
    "field_of_view": [32, 32],
    "roi_size": [32, 32],
    "epochs": 2,
    "batch_size": 2,
}
ITERATIONS = 3  # an epoch: 2 subjects of 3 slices, in batches of 2
