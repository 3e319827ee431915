"""Volumes, pictures and scores of a generative network, with a MONAI evaluator and a network that returns its input."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from monai.data import DataLoader, Dataset, MetaTensor
from monai.engines import SupervisedEvaluator
from monai.metrics import MSEMetric

from monai_invertible.handlers import RegressionMetricHandler, ScoreTableSaver, VolumeSaver

AFFINE = torch.tensor([[0, 0, 3.0, 5], [-2, 0, 0, 6], [0, 1, 0, 7], [0, 0, 0, 1]]).double()  # axes permuted, one turned


def volume(channels: int, seed: int = 0) -> MetaTensor:
    return MetaTensor(torch.rand(channels, 8, 6, 4, generator=torch.Generator().manual_seed(seed)), affine=AFFINE)


def evaluator(
    *handlers: Any, sources: int = 1, truth: bool = True, names: str = "ba", **metrics: Any
) -> SupervisedEvaluator:
    items = [
        {"image": torch.as_tensor(volume(2, ord(name))), "condition": volume(sources, 2), "subject": name}
        | ({"label": volume(2, 3)} if truth else {})
        for name in names
    ]
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(items), batch_size=1),
        network=torch.nn.Identity(),
        key_val_metric=metrics or None,
        val_handlers=list(handlers),
    )


def test_volumes_have_the_geometry_of_their_source(tmp_path: Path) -> None:
    evaluator(VolumeSaver(tmp_path, sources=1)).run()
    assert sorted(os.listdir(tmp_path)) == ["a.nii.gz", "a.png", "b.nii.gz", "b.png", "mosaic.png"]
    found = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(found.affine, AFFINE)
    np.testing.assert_array_equal(found.get_fdata(dtype=np.float32), volume(2, ord("a"))[0].numpy())


def test_samples_of_nothing_are_numbered(tmp_path: Path) -> None:
    evaluator(VolumeSaver(tmp_path), sources=0, truth=False).run()
    names = ("mosaic.png", "sample_001.nii.gz", "sample_001.png", "sample_002.nii.gz", "sample_002.png")
    assert sorted(os.listdir(tmp_path)) == list(names)
    np.testing.assert_allclose(nibabel.load(tmp_path / "sample_001.nii.gz").affine, AFFINE)


@pytest.mark.parametrize(("sources", "truth", "rows"), [(1, True, 4), (1, False, 2), (0, True, 1)])
def test_pictures(sources: int, truth: bool, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Source, generated, truth, error; the patient's right on the left, feet and back below."""
    shown: list[np.ndarray] = []
    draw = Axes.imshow
    monkeypatch.setattr(
        Axes, "imshow", lambda self, pixels, *a, **k: (shown.append(pixels), draw(self, pixels, *a, **k))
    )
    evaluator(VolumeSaver(tmp_path, sources=sources), truth=truth, sources=sources, names="a").run()
    assert len(shown) == 3 * rows + 1  # and a mosaic of one volume
    pred = volume(2, ord("a"))[0].numpy()  # its axes run to posterior, superior, right
    wanted = np.flip(pred.transpose(2, 0, 1), (0, 1))  # to left, anterior, superior
    start = 3 if sources else 0
    np.testing.assert_array_equal(shown[start], wanted[:, :, 3].T)
    np.testing.assert_array_equal(shown[start + 1], wanted[:, 4, :].T)
    np.testing.assert_array_equal(shown[start + 2], wanted[2].T)
    assert matplotlib.image.imread(tmp_path / f"{'a' if sources else 'sample_001'}.png").ndim == 3


def test_files_are_not_overwritten(tmp_path: Path) -> None:
    evaluator(VolumeSaver(tmp_path, sources=1)).run()
    with pytest.raises(FileExistsError, match="VolumeSaver: .*mosaic.png must not exist.* overwrite=True"):
        evaluator(VolumeSaver(tmp_path, sources=1)).run()
    (tmp_path / "mosaic.png").unlink()
    with pytest.raises(FileExistsError, match="VolumeSaver: .*b.nii.gz, .*b.png must not exist"):
        evaluator(VolumeSaver(tmp_path, sources=1)).run()
    evaluator(VolumeSaver(tmp_path, sources=1, overwrite=True)).run()


def test_scores_of_channels(tmp_path: Path) -> None:
    table = ScoreTableSaver(tmp_path, ["mse"], name="subject", classes=["10", "20"], filename="noise.csv")
    engine = evaluator(table, mse=RegressionMetricHandler(MSEMetric(), channels=[10, 20]))
    engine.run()
    errors = {name: (volume(2, ord(name)) - volume(2, 3)).square().mean((1, 2, 3)).tolist() for name in "ab"}
    means = [(errors["a"][channel] + errors["b"][channel]) / 2 for channel in (0, 1)]
    assert engine.state.metrics == pytest.approx({"mse": sum(means) / 2, "mse_10": means[0], "mse_20": means[1]})
    head, a, b, mean = (tmp_path / "noise.csv").read_text().splitlines()
    assert head == "subject,mse,mse_10,mse_20"
    for line, values in ((a, errors["a"]), (b, errors["b"]), (mean, means)):
        assert [float(value) for value in line.split(",")[2:]] == pytest.approx(values, rel=1e-4)


def test_what_has_no_truth_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="RegressionMetricHandler: b must have a truth to be scored, got none"):
        evaluator(truth=False, mse=RegressionMetricHandler(MSEMetric())).run()
