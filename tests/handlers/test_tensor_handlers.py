"""Scores, maps and pictures of diffusion tensors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import nibabel
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from monai_invertible.handlers import TensorMapSaver, TensorMetricHandler
from monai_invertible.operators import fractional_anisotropy, mean_diffusivity

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 2, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])


def item(subject: str = "a", shape: tuple[int, ...] = (10, 12, 8)) -> dict[str, Any]:
    """A box of diffusion along y."""
    mask = torch.zeros(1, *shape)
    mask[:, 2:-2, 2:-2, 1:-1] = 1
    truth = torch.tensor([0.3, 0, 0, 1.7, 0, 0.3]).view(6, 1, 1, 1) * 1e-3 * mask
    rounding = torch.tensor([1e-11, 0, 0, 0, 0, 0]).view(6, 1, 1, 1)  # of standardising and back
    images = {"image": 0.9 * truth + rounding, "label": truth, "pred": truth + 1e-4}
    return {"subject": subject, "mask": MetaTensor(mask, affine=torch.from_numpy(AFFINE)), **images}


def engine(*items: dict[str, Any]) -> Any:
    return SimpleNamespace(state=SimpleNamespace(batch=list(items), output=[{} for _ in items], metrics={}))


def test_maps(tmp_path: Path) -> None:
    one = item()
    TensorMapSaver(tmp_path)(engine(one))
    names = ("tensor", "MD", "FA", "truth_MD", "truth_FA")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", *(f"a_{name}.nii.gz" for name in names)}
    files = {name: nibabel.load(tmp_path / f"a_{name}.nii.gz") for name in names}
    inside = one["pred"] * one["mask"].as_tensor()
    for name, expected in {
        "tensor": inside.movedim(0, -1),
        "MD": mean_diffusivity(inside),
        "FA": fractional_anisotropy(inside),
        "truth_MD": mean_diffusivity(one["label"]),
        "truth_FA": fractional_anisotropy(one["label"]),
    }.items():
        np.testing.assert_allclose(files[name].affine, AFFINE)
        np.testing.assert_allclose(np.asarray(files[name].dataobj), expected.numpy(), rtol=1e-6)
        assert files[name].header.get_xyzt_units()[0] == "mm"


def test_pictures_show_directions_in_the_patients_axes(tmp_path: Path) -> None:
    """Diffusion to the front is green, also if the file's axes are turned."""
    upright, turned = item(), item("b")
    turned["mask"] = MetaTensor(turned["mask"].as_tensor(), affine=torch.from_numpy(AFFINE[:, [1, 0, 2, 3]]))
    TensorMapSaver(tmp_path)(engine(upright, turned))
    for name, colour in (("a", 1), ("b", 0)):  # b: the second axis of its voxels runs from left to right
        pixels = matplotlib.image.imread(tmp_path / f"{name}.png")[..., :3]
        coloured = pixels[pixels.max(-1) - pixels.min(-1) > 0.4]
        assert len(coloured) > 1000 and (coloured.argmax(-1) == colour).all()


def test_without_truth(tmp_path: Path) -> None:
    one = item()
    del one["label"]
    TensorMapSaver(tmp_path)(engine(one))
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", *(f"a_{n}.nii.gz" for n in ("tensor", "MD", "FA"))}


def test_existing_files_are_refused(tmp_path: Path) -> None:
    TensorMapSaver(tmp_path)(engine(item()))
    before = (tmp_path / "a_MD.nii.gz").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match="TensorMapSaver: .*a.png, .*must not exist.*overwrite=True"):
        TensorMapSaver(tmp_path)(engine(item()))
    assert (tmp_path / "a_MD.nii.gz").stat().st_mtime_ns == before
    TensorMapSaver(tmp_path, overwrite=True)(engine(item(), item()))  # the second is a sampler's repetition


def test_metric_handler() -> None:
    def step(engine: Engine, batch: Any) -> Any:
        engine.state.batch = batch
        return [{key: one.pop(key) for key in ("pred", "label")} for one in batch]

    evaluator = Engine(step)
    for name, handler in {
        "rmse": TensorMetricHandler(),
        "share": TensorMetricHandler("positive_definite", interior=True),
    }.items():
        handler.attach(evaluator, name)
    evaluator.run([[item("a", (12, 12, 12)), item("b", (12, 12, 12))]])
    assert evaluator.state.metrics["rmse"] == pytest.approx(10.0, rel=1e-4)
    assert evaluator.state.metrics["share"] == 1.0


def test_scoring_needs_a_truth() -> None:
    one = item()
    one["label"] = None
    with pytest.raises(ValueError, match="TensorMetricHandler: a must have a truth to be scored, got none"):
        TensorMetricHandler().iteration_completed(engine(one))
