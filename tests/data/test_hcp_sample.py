"""The HCP sample set: the format, physical tensors, same seed same bytes, different subjects, no harm to others."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from monai_invertible.__main__ import main
from monai_invertible.data import hcp_datalist, write_hcp_sample
from monai_invertible.data.diffusion_signal import read_diffusion_gradients
from monai_invertible.operators import fractional_anisotropy, mean_diffusivity
from monai_invertible.transforms import LoadDiffusionTensord


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_format(hcp_folder: Path) -> None:
    """The files, orientation and b-values of HCP."""
    folder = hcp_folder / "900001" / "T1w" / "Diffusion"
    assert {path.name for path in folder.iterdir()} == {"data.nii.gz", "bvals", "bvecs", "nodif_brain_mask.nii.gz"}
    image, mask = nibabel.load(folder / "data.nii.gz"), nibabel.load(folder / "nodif_brain_mask.nii.gz")
    assert image.shape == (27, 32, 27, 39) and mask.shape == image.shape[:3]
    assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S") and image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(image.header.get_zooms()[:3], 217.5 / 32, rtol=1e-6)
    brain = np.asarray(mask.dataobj) > 0
    assert not np.asarray(image.dataobj)[~brain].any() and 0.1 < brain.mean() < 0.4
    b, g = read_diffusion_gradients(folder / "bvals", folder / "bvecs", 39)
    assert dict(zip(*np.unique(b, return_counts=True), strict=True)) == {5: 3, 1000: 30, 3000: 6}
    np.testing.assert_allclose(np.linalg.norm(g[b > 50], axis=1), 1.0, rtol=1e-9)


def test_the_tensors_are_those_of_a_brain(hcp_folder: Path) -> None:
    pytest.importorskip("dipy", reason="pip install monai-invertible[data]")
    item = LoadDiffusionTensord()(hcp_datalist(hcp_folder)[0])
    brain, tensor = item["mask"][0].as_tensor() > 0, item["y"].as_tensor()
    diffusivity, anisotropy = mean_diffusivity(tensor)[brain], fractional_anisotropy(tensor)[brain]
    assert 0.9e-3 < diffusivity.mean() < 1.3e-3 and diffusivity.min() > 0.4e-3 and diffusivity.max() < 3.6e-3
    assert 0.15 < anisotropy.mean() < 0.4 and 0.6 < anisotropy.quantile(0.98) < 0.9  # white matter: 0.8


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    options = {"subjects": 1, "size": 24}
    once, again, more, other = (
        contents(write_hcp_sample(tmp_path / name, **{**options, **change}))
        for name, change in {"a": {}, "b": {}, "c": {"subjects": 2}, "d": {"seed": 1}}.items()
    )
    assert once == again and once.items() < more.items()
    name = "9000{}/T1w/Diffusion/data.nii.gz"
    assert once[name.format("01")] != other[name.format("01")] != more[name.format("02")]


def test_overwrite_replaces_all_subjects_and_nothing_else(tmp_path: Path) -> None:
    write_hcp_sample(tmp_path, subjects=2, size=24)
    (tmp_path / "900002" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds a sample set already.*--overwrite"):
        write_hcp_sample(tmp_path, subjects=1, size=24)
    write_hcp_sample(tmp_path, subjects=1, size=24, overwrite=True)
    assert (tmp_path / "900002" / "notes.txt").read_text() == "mine" and not (tmp_path / "900002" / "T1w").exists()
    assert len(hcp_datalist(tmp_path)) == 1


def test_a_folder_of_others_is_never_touched(tmp_path: Path) -> None:
    file = tmp_path / "900001" / "T1w" / "Diffusion" / "data.nii.gz"
    file.parent.mkdir(parents=True)
    file.write_text("months of scanning")
    with pytest.raises(FileExistsError, match="is not empty and was not written by this command"):
        write_hcp_sample(tmp_path, overwrite=True)
    assert file.read_text() == "months of scanning"


@pytest.mark.parametrize("options", [{"size": 23}, {"subjects": 0}, {"noise": -1.0}])
def test_impossible_arguments(tmp_path: Path, options: dict[str, float]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=rf"write_hcp_sample: size must be at least 24.*{name}={value}.*size=32"):
        write_hcp_sample(tmp_path / "new", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


def test_noise_is_as_asked_for(tmp_path: Path) -> None:
    volumes = []
    for noise in (0.0, 0.05):
        folder = write_hcp_sample(tmp_path / str(noise), subjects=1, size=24, noise=noise) / "900001/T1w/Diffusion"
        volumes.append(np.asarray(nibabel.load(folder / "data.nii.gz").dataobj)[..., 0].astype(float))
    clean, noisy = (volume[volumes[0] > 0] for volume in volumes)
    assert torch.std(torch.from_numpy(noisy - clean)) == pytest.approx(0.05 * clean.mean(), rel=0.1)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample-data", "hcp", str(tmp_path / "sample"), "--subjects", "1", "--size", "24"]
    assert main(command) == 0
    assert capsys.readouterr().out.strip().endswith("900001")
    assert main(command) == 1 and capsys.readouterr().err.startswith("error: sample data: ")
