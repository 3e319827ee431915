"""The largest patch, on a report of known size and on a network."""

from __future__ import annotations

import pytest
from torch import nn

from monai_invertible.memory import MemoryReport, estimate_training_step, largest_patch


def cubic(edge: int) -> MemoryReport:
    """One byte a voxel."""
    return MemoryReport("Cubic", True, 0, 0, 0, 0, 0, 0, peak=edge**3)


@pytest.mark.parametrize("edge", [16, 32, 48, 112, 1024])
def test_budget_is_met_exactly(edge):
    assert largest_patch(cubic, edge**3) == edge
    if edge > 16:
        assert largest_patch(cubic, edge**3 - 1) == edge - 16


@pytest.mark.parametrize(("multiple_of", "up_to", "edge"), [(1, 1024, 100), (8, 1024, 96), (8, 70, 64), (70, 70, 70)])
def test_multiple_and_limit(multiple_of, up_to, edge):
    assert largest_patch(cubic, 100.5**3, multiple_of=multiple_of, up_to=up_to) == edge


def test_small_patches_are_tried_only_if_needed():
    """Networks refuse patches that are smaller than their deepest level."""
    tried = []
    largest_patch(lambda edge: tried.append(edge) or cubic(edge), 64**3)
    assert min(tried) >= 64 and len(tried) <= 7


def test_network_fits_and_a_larger_patch_does_not():
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    budget = 10 * 2**20

    def step(edge):
        return estimate_training_step(network, (2, 1, edge, edge))

    edge = largest_patch(step, budget)
    assert edge % 16 == 0 and 16 < edge < 1024
    assert step(edge).peak <= budget < step(edge + 16).peak


def test_nothing_fits():
    with pytest.raises(ValueError, match="an edge of 16, which needs 4.00 KiB, got 1000 B. Use a smaller network"):
        largest_patch(cubic, 1000)


@pytest.mark.parametrize(("multiple_of", "up_to"), [(0, 64), (128, 64)])
def test_unusable_multiple(multiple_of, up_to):
    with pytest.raises(ValueError, match=f"multiple_of must be from 1 to up_to, got {multiple_of} and {up_to}"):
        largest_patch(cubic, 2**30, multiple_of=multiple_of, up_to=up_to)
