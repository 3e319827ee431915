"""Scores and files of an evaluation, with a MONAI evaluator and a network that returns the zero-filled image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastmri
import h5py
import matplotlib.image
import nibabel
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import Compose, DeleteItemsd

from monai_invertible.data import fastmri_datalist
from monai_invertible.engines import PrepareBatchKspace
from monai_invertible.handlers import FastMRIMetricHandler, ReconstructionSaver, ScoreTableSaver
from monai_invertible.transforms import LoadFastMRId, ReferenceImaged, UndersampleKspaced


class ZeroFilled(torch.nn.Module):
    scale = 1.0

    def forward(self, kspace: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        assert mask is not None
        return self.scale * fastmri.ifft2c(kspace)[:, 0].movedim(-1, 1)


def evaluator(folder: Path, *, unit: str = "slice", steps: tuple[Any, ...] = (), **options: Any) -> SupervisedEvaluator:
    test = folder.name.endswith("test")
    target = () if test else (ReferenceImaged(),)
    undersample = UndersampleKspaced(center_fractions=[0.08], accelerations=[4], seed_by_filename=True)
    dataset = Dataset(fastmri_datalist(folder, unit), Compose([LoadFastMRId(), *target, undersample, *steps]))
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=1 if test or unit == "volume" else 2),
        network=ZeroFilled(),
        prepare_batch=PrepareBatchKspace(),
        **options,
    )


def zero_filled(path: Path, mask: np.ndarray) -> np.ndarray:
    with h5py.File(path) as file:
        kspace = file["kspace"][()] * mask
    axes = (-2, -1)
    image = np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(kspace, axes=axes), norm="ortho"), axes=axes))
    top, left = (image.shape[-2] - 32) // 2, (image.shape[-1] - 32) // 2
    return image[:, top : top + 32, left : left + 32]


@pytest.fixture(scope="module")
def outcome(fastmri_folder: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """path, zero-filled volume and reference of the validation subject, by numpy alone."""
    from fastmri.data.subsample import RandomMaskFunc

    path = fastmri_folder / "singlecoil_val" / "file2000000.h5"
    with h5py.File(path) as file:
        reference, columns = file["reconstruction_esc"][()], file["kspace"].shape[-1]
    mask, _ = RandomMaskFunc([0.08], [4])((1, columns, 2), seed=tuple(map(ord, path.name)))
    return path, zero_filled(path, mask.numpy().reshape(-1)), reference


@pytest.mark.parametrize("unit", ["slice", "volume"])
@pytest.mark.parametrize("decollate", [True, False])
@pytest.mark.parametrize("source", ["reference", "target"])
def test_scores(outcome: tuple[Path, np.ndarray, np.ndarray], unit: str, decollate: bool, source: str) -> None:
    import fastmri.evaluate as official

    path, image, reference = outcome
    metrics = {name: FastMRIMetricHandler(name) for name in ("nmse", "psnr", "ssim")}
    engine = evaluator(
        path.parent,
        unit=unit,
        steps=(DeleteItemsd("reference"),) if source == "target" else (),
        decollate=decollate,
        key_val_metric={"ssim": metrics.pop("ssim")},
        additional_metrics=metrics,
    )
    for _ in range(2):  # a second epoch starts anew
        engine.run()
    for name in ("nmse", "psnr", "ssim"):
        wanted = official.METRIC_FUNCS[name.upper()](reference, image.astype(np.float32))
        assert engine.state.metrics[name] == pytest.approx(np.asarray(wanted).item(), rel=1e-4)
        assert engine.state.metric_details[name].shape == (1, 1)
    assert engine.state.best_metric == engine.state.metrics["ssim"]


def test_table_of_scores(fastmri_folder: Path, tmp_path: Path) -> None:
    """One row a volume with its own name, whatever the order in which slices arrive."""
    options: dict[str, Any] = {"key_val_metric": {"nmse": FastMRIMetricHandler("nmse")}}
    folder = fastmri_folder / "singlecoil_train"
    engine = evaluator(folder, **options, val_handlers=[ScoreTableSaver(tmp_path, ["nmse"])])
    engine.data_loader.dataset.data.reverse()
    engine.run()
    header, *rows, mean = [line.split(",") for line in (tmp_path / "scores.csv").read_text().split()]
    assert header == ["filename", "nmse"] and mean[0] == "mean"
    assert [row[0] for row in rows] == ["file1000000.h5", "file1000001.h5"]
    assert float(mean[1]) == pytest.approx((float(rows[0][1]) + float(rows[1][1])) / 2, rel=1e-5)
    engine.data_loader.dataset.data = engine.data_loader.dataset.data[:3]  # a second run knows nothing of the first
    engine.run()
    table = (tmp_path / "scores.csv").read_text().split()
    assert [line.partition(",")[0] for line in table] == ["filename", "file1000001.h5", "mean"]
    for name, score in rows:
        alone = evaluator(folder, **options)
        alone.data_loader.dataset.data = [item for item in alone.data_loader.dataset.data if item["filename"] == name]
        alone.run()
        assert float(score) == pytest.approx(alone.state.metrics["nmse"], rel=1e-5)


def test_scores_need_a_reference(fastmri_folder: Path) -> None:
    engine = evaluator(fastmri_folder / "singlecoil_test", key_val_metric={"ssim": FastMRIMetricHandler()})
    with pytest.raises(ValueError, match='file3000000.h5 must have a "reference" or a target, got none'):
        engine.run()


@pytest.mark.parametrize("unit", ["slice", "volume"])
def test_files_of_a_volume(outcome: tuple[Path, np.ndarray, np.ndarray], unit: str, tmp_path: Path) -> None:
    path, image, _ = outcome
    evaluator(path.parent, unit=unit, val_handlers=[ReconstructionSaver(tmp_path / "out")]).run()
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["file2000000.h5", "file2000000.nii.gz", "file2000000.png"]
    with h5py.File(tmp_path / "out" / names[0]) as file:
        assert list(file) == ["reconstruction"] and file["reconstruction"].dtype == np.float32
        np.testing.assert_allclose(file["reconstruction"][()], image, rtol=1e-3, atol=1e-8)
    nifti = nibabel.load(tmp_path / "out" / names[1])
    assert nifti.header.get_zooms() == (6.0, 6.0, 5.0) and nifti.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(np.moveaxis(nifti.get_fdata(), -1, 0), image, rtol=1e-3, atol=1e-8)
    picture = matplotlib.image.imread(tmp_path / "out" / names[2])
    assert picture.shape[1] == 1200  # four panels


def test_files_of_test_volumes(fastmri_folder: Path, tmp_path: Path) -> None:
    """No references: two panels; both volumes are written with their own names."""
    evaluator(fastmri_folder / "singlecoil_test", val_handlers=[ReconstructionSaver(tmp_path)]).run()
    assert len(list(tmp_path.iterdir())) == 6
    for source in (fastmri_folder / "singlecoil_test").iterdir():
        with h5py.File(tmp_path / source.name) as file:
            np.testing.assert_allclose(
                file["reconstruction"][()], zero_filled(source, np.ones(1)), rtol=1e-3, atol=1e-8
            )
        assert matplotlib.image.imread(tmp_path / f"{source.stem}.png").shape[1] == 600


@pytest.mark.parametrize("reference", [True, False])
def test_picture(
    outcome: tuple[Path, np.ndarray, np.ndarray], reference: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the middle slice: zero-filled, reconstruction, reference, error x 5, with one grey scale."""
    path, image, truth = outcome
    shown: list[tuple[np.ndarray, float, float]] = []
    monkeypatch.setattr(Axes, "imshow", lambda self, panel, cmap, vmin, vmax: shown.append((panel, vmin, vmax)))
    steps = () if reference else (DeleteItemsd("reference"),)
    engine = evaluator(path.parent, steps=steps, val_handlers=[ReconstructionSaver(tmp_path)])
    engine.network.scale = 0.5
    engine.run()
    panels = [image[1], image[1] / 2]
    if reference:
        panels += [truth[1], 5 * np.abs(image[1] / 2 - truth[1])]
    assert len(shown) == len(panels)
    for (panel, low, high), wanted in zip(shown, panels, strict=True):
        np.testing.assert_allclose(panel, wanted, rtol=1e-3, atol=1e-7)
        assert low == 0 and high == pytest.approx((truth if reference else image / 2)[1].max(), rel=1e-4)


def test_existing_files_are_kept_unless_told(outcome: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    folder, old = outcome[0].parent, tmp_path / "file2000000.nii.gz"
    old.write_text("old")
    with pytest.raises(FileExistsError, match="file2000000.nii.gz must not exist. Choose another output_dir, or set"):
        evaluator(folder, val_handlers=[ReconstructionSaver(tmp_path)]).run()
    assert old.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    engine = evaluator(folder, val_handlers=[ReconstructionSaver(tmp_path, overwrite=True)])
    for _ in range(2):  # each run writes
        old.unlink()
        engine.run()
    assert nibabel.load(old).shape == (32, 32, 3) and len(list(tmp_path.iterdir())) == 3


def test_an_item_that_a_distributed_sampler_repeats_is_written_once(
    outcome: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    path, image, _ = outcome
    engine = evaluator(path.parent, val_handlers=[ReconstructionSaver(tmp_path)])
    dataset = engine.data_loader.dataset
    dataset.data = [*dataset.data, dataset.data[0]]
    engine.run()
    with h5py.File(tmp_path / "file2000000.h5") as file:
        np.testing.assert_allclose(file["reconstruction"][()], image, rtol=1e-3, atol=1e-8)


def test_an_incomplete_volume_is_written_when_the_run_ends(
    outcome: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    path, image, _ = outcome
    engine = evaluator(path.parent, val_handlers=[ReconstructionSaver(tmp_path)], epoch_length=1)
    engine.run()
    with h5py.File(tmp_path / "file2000000.h5") as file:
        np.testing.assert_allclose(file["reconstruction"][()], image[:2], rtol=1e-3, atol=1e-8)


def test_a_volume_without_its_middle_slice_has_no_picture(
    outcome: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    engine = evaluator(outcome[0].parent, val_handlers=[ReconstructionSaver(tmp_path)])
    engine.data_loader.dataset.data = engine.data_loader.dataset.data[:1]
    engine.run()
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".gz", ".h5"]


def test_slices_in_any_order(outcome: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path) -> None:
    path, image, _ = outcome
    engine = evaluator(path.parent, val_handlers=[ReconstructionSaver(tmp_path)])
    engine.data_loader.dataset.data.reverse()
    engine.run()
    with h5py.File(tmp_path / "file2000000.h5") as file:
        np.testing.assert_allclose(file["reconstruction"][()], image, rtol=1e-3, atol=1e-8)
