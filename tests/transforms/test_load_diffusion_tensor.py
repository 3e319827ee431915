"""Loading tensors: from signal and from files, low and high resolution, dipy's real scans, and every bad input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from monai_invertible.data import hcp_datalist
from monai_invertible.data.block_mean import block_mean, repeat_blocks
from monai_invertible.operators import fractional_anisotropy, is_positive_definite, mean_diffusivity
from monai_invertible.transforms import LoadDiffusionTensord

pytest.importorskip("dipy", reason="pip install monai-invertible[data]")
Item = dict[str, Any]


@pytest.fixture
def item(hcp_folder: Path, tmp_path: Path) -> Item:
    """One subject, free to be damaged."""
    shutil.copytree(hcp_folder / "900002", tmp_path / "hcp" / "900002")
    return hcp_datalist(tmp_path / "hcp")[0]


@pytest.fixture
def tensor_item(item: Item, tmp_path: Path) -> Item:
    """The same subject's tensors as a file."""
    loaded = LoadDiffusionTensord()(item)
    folder = tmp_path / "tensors" / "900002"
    folder.mkdir(parents=True)
    image = nibabel.Nifti1Image(loaded["y"].numpy().transpose(1, 2, 3, 0), loaded["y"].affine.numpy())
    nibabel.save(image, folder / "dti_tensor.nii.gz")
    return hcp_datalist(tmp_path / "tensors")[0]


def rewrite(path: str, array: Any = None, affine: Any = None) -> None:
    image = nibabel.load(path)
    data = np.asarray(image.dataobj) if array is None else array
    nibabel.save(nibabel.Nifti1Image(data, image.affine if affine is None else affine), path)


def test_high_and_low_resolution(item: Item) -> None:
    """On one grid, the low resolution constant in blocks, its mean that of the high resolution where all is brain."""
    loaded = LoadDiffusionTensord()(item)
    assert set(loaded) == {"x", "y", "mask", "subject"}
    x, y, mask = (loaded[key].as_tensor() for key in ("x", "y", "mask"))
    assert x.shape == y.shape == (6, 27, 32, 27) and mask.shape == (1, 27, 32, 27) and x.dtype == torch.float32
    np.testing.assert_array_equal(loaded["y"].affine.numpy(), nibabel.load(item["dwi"]).affine)
    assert torch.equal(x[:, 0:26:2], x[:, 1:27:2]) and torch.equal(x[..., 0:26:2], x[..., 1:27:2])
    assert not y[:, mask[0] == 0].any() and is_positive_definite(y)[mask[0] > 0].all()
    whole = torch.nn.functional.avg_pool3d(mask, 2) == 1
    means = torch.nn.functional.avg_pool3d(y, 2)[:, whole[0]]
    blocks = x[:, :26:2, ::2, :26:2][:, whole[0]]
    assert torch.corrcoef(torch.stack([means.flatten(), blocks.flatten()]))[0, 1] > 0.98
    assert Path(loaded["y"].meta["filename_or_obj"]).name == "900002.nii.gz"


def test_a_file_of_tensors(item: Item, tensor_item: Item) -> None:
    signal, loaded = LoadDiffusionTensord()(item), LoadDiffusionTensord()(tensor_item)
    torch.testing.assert_close(loaded["y"].as_tensor(), signal["y"].as_tensor())
    assert torch.equal(loaded["mask"], signal["mask"])
    difference = (loaded["x"] - signal["x"]).as_tensor().abs()
    assert 0 < difference.mean() < 0.1 * signal["x"].as_tensor().abs().mean()  # the mean of tensors, not of signals


@pytest.mark.parametrize("kind", ["item", "tensor_item"])
def test_low_resolution_files_cover_the_same_space_on_a_finer_grid(kind: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(kind)
    y = LoadDiffusionTensord()(source)["y"]
    loaded = LoadDiffusionTensord(low_resolution=True)(source)
    assert set(loaded) == {"x", "mask", "subject"} and loaded["x"].shape == (6, 54, 64, 54)
    assert torch.equal(loaded["x"].as_tensor()[:, 1::2, ::2, 1::2], y.as_tensor())
    fine, coarse = loaded["x"].affine.numpy(), y.affine.numpy()
    for corner, other in (([-0.5] * 3, [-0.5] * 3), ([53.5, 63.5, 53.5], [26.5, 31.5, 26.5])):
        np.testing.assert_allclose(fine @ [*corner, 1], coarse @ [*other, 1], atol=1e-3)


@pytest.mark.parametrize("name", ["small_64D", "small_101D"])
def test_real_scans(name: str, tmp_path: Path) -> None:
    """The crops of real brains in dipy's wheel, with its own files; without a mask of theirs, everything is brain."""
    import dipy

    files = Path(dipy.__file__).parent / "data" / "files"
    folder = tmp_path / "real"
    folder.mkdir()
    image = nibabel.load(next(files.glob(f"{name}.nii*")))
    nibabel.save(image, folder / "data.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image(np.ones(image.shape[:3], np.uint8), image.affine), folder / "nodif_brain_mask.nii.gz"
    )
    shutil.copy(files / f"{name}.bval", folder / "bvals")
    shutil.copy(files / f"{name}.bvec", folder / "bvecs")
    loaded = LoadDiffusionTensord(b_max=1500.0)(hcp_datalist(tmp_path)[0])
    tensor = loaded["y"].as_tensor()
    assert tensor.shape == (6, *image.shape[:3]) and is_positive_definite(tensor).all()
    assert 3e-4 < mean_diffusivity(tensor).median() < 2e-3 and 0.05 < fractional_anisotropy(tensor).median() < 0.9
    assert loaded["x"].shape == tensor.shape


def test_only_the_lower_shells_are_fitted(item: Item) -> None:
    one = LoadDiffusionTensord()(item)["y"].as_tensor()
    image = nibabel.load(item["dwi"])
    array = np.asarray(image.dataobj).copy()
    array[..., np.loadtxt(item["bvals"]) == 3000] = 1
    rewrite(item["dwi"], array)
    assert torch.equal(LoadDiffusionTensord()(item)["y"].as_tensor(), one)
    assert not torch.allclose(LoadDiffusionTensord(b_max=3000.0)(item)["y"].as_tensor(), one, atol=1e-5)


def table(path: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    np.savetxt(path, change(np.loadtxt(path)))


def edited(array: np.ndarray, index: Any, value: float) -> np.ndarray:
    array[index] = value
    return array


def test_rows_or_columns_of_directions(item: Item) -> None:
    one = LoadDiffusionTensord()(item)["y"]
    table(item["bvecs"], lambda g: g.T)
    assert torch.equal(LoadDiffusionTensord()(item)["y"], one)


@pytest.mark.parametrize(
    ("file", "change", "text"),
    [
        ("bvals", lambda b: b[:-1], "bvals: there must be one b-value for each of the 39 volumes, got 38"),
        ("bvals", lambda b: edited(b, 4, -1000), "b-values must be finite and not negative, got -1000"),
        ("bvals", lambda b: edited(b, 4, np.nan), "b-values must be finite and not negative, got nan"),
        ("bvals", lambda b: np.maximum(b, 1000), "a tensor needs a volume with b = 0, got 1000 to 3000"),
        ("bvals", lambda b: np.minimum(b, 5), "at least six volumes with b > 50, got 0"),
        ("bvals", lambda b: np.where(b == 1000, 2000, b), "six volumes with b from 50 to b_max = 1500, got 0.*Raise"),
        (
            "bvecs",
            lambda g: g[:, :-1],
            r"bvecs: there must be three numbers for each of the 39 volumes, got shape \(38,",
        ),
        ("bvecs", lambda g: g[:2], r"three numbers for each of the 39 volumes, got shape \(2, 39\)"),
        (
            "bvecs",
            lambda g: edited(g, (slice(None), 7), 1.0),
            r"unit vectors, got length 1.73.* in volume 7 \(b = 1000",
        ),
        ("bvecs", lambda g: edited(g, (0, 7), np.nan), "unit vectors, got length nan in volume 7"),
    ],
)
def test_wrong_gradients(item: Item, file: str, change: Any, text: str) -> None:
    table(item[file], change)
    with pytest.raises(ValueError, match=text):
        LoadDiffusionTensord()(item)


def test_unreadable_gradients(item: Item) -> None:
    Path(item["bvecs"]).write_text("0 0 one\n")
    with pytest.raises(OSError, match="bvecs: this file must hold rows of equally many numbers.*Fetch it again"):
        LoadDiffusionTensord()(item)


def test_wrong_images(item: Item) -> None:
    load = LoadDiffusionTensord()
    mask = np.asarray(nibabel.load(item["mask"]).dataobj)
    affine = nibabel.load(item["mask"]).affine
    rewrite(item["mask"], mask[1:])
    with pytest.raises(ValueError, match=r"one shape, got \(26, 32, 27\), and \(27, 32, 27\) in .*data.nii.gz"):
        load(item)
    rewrite(item["mask"], mask, np.diag([6.0, 6.0, 6.0, 1.0]))
    with pytest.raises(ValueError, match="all images of a subject must have one affine"):
        load(item)
    rewrite(item["mask"], np.zeros_like(mask), affine)
    with pytest.raises(ValueError, match=r"got an empty mask \(subject 900002\)"):
        load(item)
    data = Path(item["dwi"])
    data.write_bytes(data.read_bytes()[:-5000])
    with pytest.raises(OSError, match="data.nii.gz: this image of subject 900002 cannot be read.*incomplete"):
        load(item)


def test_wrong_tensors(tensor_item: Item) -> None:
    load, path = LoadDiffusionTensord(), tensor_item["tensor"]
    array = np.asarray(nibabel.load(path).dataobj)
    for change, text in (
        (array * 1000, r"must be in mm\^2/s, in a brain about 0.001, got a mean diffusivity of 1.\d+ .*times 0.001"),
        (array[..., :5], "must have the six components .* got 5"),
        (array[..., 0], "must be 3D volumes in one 4D file"),
        (np.where(array == array.max(), np.nan, array), "voxels must be finite, got 1 that are NaN"),
        (array * 0, "got an empty mask"),
    ):
        rewrite(path, change.astype(np.float32))
        with pytest.raises(ValueError, match=text):
            load(tensor_item)


def test_factor() -> None:
    with pytest.raises(ValueError, match="factor must be at least 2, got 1"):
        LoadDiffusionTensord(factor=1)


@pytest.mark.parametrize("factor", [2, 3])
def test_block_mean_is_that_of_a_loop(factor: int) -> None:
    rng = np.random.default_rng(0)
    volume, mask = rng.standard_normal((5, 4, 7, 2)), rng.random((5, 4, 7)) > 0.6
    mean, any_ = block_mean(volume, mask, factor)
    for index in np.ndindex(any_.shape):
        block = tuple(slice(i * factor, (i + 1) * factor) for i in index)
        inside = volume[block][mask[block]]
        assert any_[index] == bool(len(inside))
        np.testing.assert_allclose(mean[index], inside.mean(0) if len(inside) else 0.0, rtol=1e-6)
    back = repeat_blocks(np.moveaxis(mean, -1, 0), factor, mask.shape)
    assert back.shape == (2, 5, 4, 7)
    np.testing.assert_array_equal(back[:, 4, 3, 6], mean[4 // factor, 3 // factor, 6 // factor])
