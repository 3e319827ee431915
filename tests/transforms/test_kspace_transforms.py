"""Cropping, under-sampling and targets of k-space: checked in image space and against the fastMRI package."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import fastmri
import numpy as np
import pytest
import torch
from fastmri.data import transforms as official
from fastmri.data.subsample import RandomMaskFunc
from monai.data import CacheDataset
from monai.transforms import Compose
from monai.utils import set_determinism

from monai_invertible.data import fastmri_datalist, fastmri_masks
from monai_invertible.transforms import CropKspaced, LoadFastMRId, ReferenceImaged, UndersampleKspaced


@pytest.fixture
def item(fastmri_folder: Path) -> dict[Any, Any]:
    return LoadFastMRId()(fastmri_datalist(fastmri_folder / "singlecoil_val")[1])


@pytest.fixture
def volume(fastmri_folder: Path) -> dict[Any, Any]:
    return LoadFastMRId()(fastmri_datalist(fastmri_folder / "singlecoil_val", "volume")[0])


def test_target_is_the_reference_of_the_file(item: dict[Any, Any], volume: dict[Any, Any]) -> None:
    for data in (item, volume):
        target = ReferenceImaged()(data)["target"]
        assert target.shape == (2, *data["kspace"].shape[1:-1])
        magnitude = official.center_crop(target.square().sum(0, keepdim=True).sqrt(), (32, 32))
        torch.testing.assert_close(magnitude, data["reference"], rtol=1e-4, atol=1e-9)


def test_target_of_several_coils_is_the_image_that_they_saw(item: dict[Any, Any]) -> None:
    image = torch.view_as_complex(fastmri.ifft2c(item["kspace"]))
    sensitivities = torch.randn(4, *image.shape[1:], dtype=torch.complex64)
    sensitivities /= torch.linalg.vector_norm(sensitivities, dim=0, keepdim=True)
    item["kspace"] = fastmri.fft2c(torch.view_as_real(sensitivities * image))
    with pytest.raises(ValueError, match='combining 4 coils needs "sensitivities", got none'):
        ReferenceImaged()(item)
    item["sensitivities"] = torch.view_as_real(sensitivities)
    target = ReferenceImaged()(item)["target"]
    torch.testing.assert_close(target, torch.view_as_real(image)[0].movedim(-1, 0), rtol=1e-3, atol=1e-8)


def test_crop_is_a_crop_of_the_image(item: dict[Any, Any]) -> None:
    whole = ReferenceImaged()(item)["target"]
    cropped = CropKspaced(roi_size=(20, 26))(item)
    assert cropped["kspace"].shape == (1, 20, 26, 2) and "reference" not in cropped and "reference" in item
    target = ReferenceImaged()(cropped)["target"]
    torch.testing.assert_close(target, official.center_crop(whole, (20, 26)), rtol=1e-4, atol=1e-9)


def test_crop_to_the_whole_is_exact(volume: dict[Any, Any]) -> None:
    for roi_size in ((0, 0), (-1, -1, -1), tuple(volume["kspace"].shape[1:-1])):
        assert torch.equal(CropKspaced(roi_size=roi_size)(volume)["kspace"], volume["kspace"])


def test_padding_is_undone_by_cropping(volume: dict[Any, Any]) -> None:
    sizes = volume["kspace"].shape[1:-1]
    padded = CropKspaced(roi_size=[n + 5 for n in sizes])(volume)
    image = ReferenceImaged()(padded)["target"]
    assert image.shape[1:] == tuple(n + 5 for n in sizes)
    assert image[:, 0].abs().max() == 0 and image[..., 0].abs().max() < 1e-9
    again = CropKspaced(roi_size=sizes)(padded)
    torch.testing.assert_close(again["kspace"], volume["kspace"], rtol=1e-3, atol=1e-9)
    assert again["slice_index"] == 0 + 2  # counted in the padded volume


def test_random_positions(volume: dict[Any, Any]) -> None:
    crop = CropKspaced(roi_size=(2, 40, 30), random_position=True).set_random_state(seed=3)
    items = [crop(volume) for _ in range(20)]
    assert {item["slice_index"] for item in items} == {0, 1}
    whole = ReferenceImaged()(volume)["target"]
    found = set()
    for item in items:
        image = ReferenceImaged()(item)["target"]
        part = whole[:, item["slice_index"] : item["slice_index"] + 2]
        differences = {
            (row, column): float((part[..., row : row + 40, column : column + 30] - image).abs().max())
            for row in range(25)
            for column in range(whole.shape[-1] - 29)
        }
        position = min(differences, key=lambda key: differences[key])
        assert differences[position] < 1e-8
        found.add(position)
    assert len(found) > 10
    crop.set_random_state(seed=3)
    for item in items:
        assert torch.equal(crop(volume)["kspace"], item["kspace"])


def test_impossible_crops(item: dict[Any, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"roi_size must be \(rows, columns\) or \(slices, rows, columns\), got \(8,\)"
    ):
        CropKspaced(roi_size=(8,))
    with pytest.raises(ValueError, match=r"roi_size \(2, 8, 8\) must not have more dimensions than the data"):
        CropKspaced(roi_size=(2, 8, 8))(item)
    masked = UndersampleKspaced()(item)
    with pytest.raises(ValueError, match="CropKspaced: k-space must be fully sampled, got a mask .file2000000.h5"):
        CropKspaced()(masked)
    with pytest.raises(ValueError, match="ReferenceImaged: the target needs fully sampled k-space"):
        ReferenceImaged()(masked)


@pytest.mark.parametrize("acceleration", [4, 8])
def test_validation_masks_are_those_of_fastmri(item: dict[Any, Any], acceleration: int) -> None:
    fractions, accelerations = [0.32 / acceleration], [acceleration]
    transform = UndersampleKspaced("kspace", fractions, accelerations, seed_by_filename=True)
    masked = transform(item)
    seed = tuple(map(ord, item["filename"]))
    kspace, mask, _ = official.apply_mask(item["kspace"], RandomMaskFunc(fractions, accelerations), seed=seed)
    assert torch.equal(masked["mask"], mask) and torch.equal(masked["kspace"], kspace)
    assert torch.equal(transform(item)["mask"], mask)  # in every epoch


def test_training_masks_change_and_can_be_repeated(item: dict[Any, Any], volume: dict[Any, Any]) -> None:
    transform = UndersampleKspaced().set_random_state(seed=1)
    masks = [transform(item)["mask"] for _ in range(200)]
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) > 150
    fractions = sorted(float(mask.mean()) for mask in masks)
    assert np.mean(fractions) == pytest.approx((1 / 4 + 1 / 8) / 2, abs=0.02)
    transform.set_random_state(seed=1)
    assert torch.equal(transform(item)["mask"], masks[0])
    masked = transform(volume)
    columns = volume["kspace"].shape[-2]
    assert masked["mask"].shape == (1, 1, 1, columns, 1)
    assert torch.equal(masked["kspace"], volume["kspace"] * masked["mask"])


def test_the_mask_of_the_file_comes_first(fastmri_folder: Path) -> None:
    for unit in ("slice", "volume"):
        item = LoadFastMRId()(fastmri_datalist(fastmri_folder / "singlecoil_test", unit)[0])
        masked = UndersampleKspaced(masks=[np.zeros(64)])(item)
        assert torch.equal(masked["mask"], item["mask"]) and torch.equal(masked["kspace"], item["kspace"])
    item["mask"] = item["mask"][..., 2:, :]
    with pytest.raises(ValueError, match="the mask must have one value a column, got"):
        UndersampleKspaced()(item)


def test_masks_of_the_test_set(fastmri_folder: Path, item: dict[Any, Any]) -> None:
    masks = fastmri_masks(fastmri_folder / "singlecoil_test")
    cropped = CropKspaced(roi_size=(40, 28))(item)
    transform = UndersampleKspaced(masks=masks).set_random_state(seed=0)
    drawn = {tuple(transform(cropped)["mask"].flatten().tolist()) for _ in range(30)}
    central = {tuple(mask[(mask.size - 28) // 2 :][:28].tolist()) for mask in masks}
    assert drawn == central and len(central) == 2
    with pytest.raises(ValueError, match="masks must have at least 28 columns, got at most 12"):
        UndersampleKspaced(masks=[np.ones(12)])(cropped)


def test_a_training_pipeline_is_reproducible_and_picklable(fastmri_folder: Path) -> None:
    def epoch() -> list[torch.Tensor]:
        set_determinism(seed=7)
        pipeline = Compose(
            [
                LoadFastMRId(),
                CropKspaced(roi_size=(48, 28), random_position=True),
                ReferenceImaged(),
                UndersampleKspaced(),
            ]
        )
        pipeline.set_random_state(seed=7)
        items = fastmri_datalist(fastmri_folder / "singlecoil_train")
        dataset = CacheDataset(items, pickle.loads(pickle.dumps(pipeline)), num_workers=1, progress=False)
        return [dataset[index][key] for index in range(6) for key in ("kspace", "target", "mask")]

    try:
        first, second = epoch(), epoch()
    finally:
        set_determinism(seed=None)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[2], first[5])
