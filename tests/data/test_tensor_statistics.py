"""Standardisation: measured over the brain, kept in a file, and undone exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_invertible.data import TensorStatistics


@pytest.fixture
def items() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def item(size: int) -> dict[str, torch.Tensor]:
        mask = torch.rand(1, size, 5, 4, generator=generator) > 0.5
        return {"y": 1e-3 * (1 + torch.randn(6, size, 5, 4, generator=generator)) * mask, "mask": mask.float()}

    return [item(4), item(7)]


def test_measured(items: list[dict[str, torch.Tensor]], tmp_path: Path) -> None:
    brain = torch.cat([item["y"][:, item["mask"][0] > 0] for item in items], dim=1).double()
    statistics = TensorStatistics.measured(items)
    torch.testing.assert_close(statistics.mean, brain.mean(1))
    torch.testing.assert_close(statistics.std, brain.std(1, correction=0))
    again = TensorStatistics.read(statistics.write(tmp_path / "new" / "s.json") and tmp_path / "new" / "s.json")
    assert torch.equal(again.mean, statistics.mean) and torch.equal(again.std, statistics.std)
    standardised = again.standardize(items[0]["y"])
    assert standardised.dtype == torch.float32
    torch.testing.assert_close(again.restore(standardised), items[0]["y"], rtol=1e-5, atol=1e-9)
    both = torch.cat([again.standardize(item["y"])[:, item["mask"][0] > 0] for item in items], dim=1)
    torch.testing.assert_close(both.mean(1), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(both.std(1, correction=0), torch.ones(6), atol=1e-5, rtol=0)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="TensorStatistics: .*s.json does not exist. A training writes it"):
        TensorStatistics.read(tmp_path / "s.json")
    for text in ("{}", "[1]", "not json", '{"mean": [0], "std": [0]}'):
        (tmp_path / "s.json").write_text(text)
        with pytest.raises(OSError, match="s.json must hold mean and std, got something else"):
            TensorStatistics.read(tmp_path / "s.json")
    with pytest.raises(ValueError, match="equally many means and positive standard deviations"):
        TensorStatistics([0.0, 0.0], [1.0])
    with pytest.raises(ValueError, match="must have 1 channels as these statistics, got 6"):
        TensorStatistics([0.0], [1.0]).standardize(torch.zeros(6, 2, 2, 2))
    with pytest.raises(ValueError, match="there must be a voxel to measure, got none"):
        TensorStatistics.measured([])
