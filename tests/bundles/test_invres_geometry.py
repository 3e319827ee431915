"""The segmentation bundles on images of any geometry and format: the mask lies on the voxels of the input."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from tests.bundles.helper import run
from tests.bundles.invres import Invres, dice


def rewritten(invres: Invres, folder: Path, change: Any) -> str:
    """A folder with the first subject, all of whose images went through ``change``, as NIfTI."""
    item = invres.items()[0]
    subject = item["subject"]
    for path in item["image"]:
        stem = Path(path).name.partition(".")[0]
        target = folder / (subject if invres.name == "brats" else "") / f"{stem}.nii.gz"
        target.parent.mkdir(parents=True, exist_ok=True)
        image = nibabel.load(path)
        image = nibabel.Nifti1Image(np.asarray(image.dataobj, np.float32).reshape(image.shape[:3]), image.affine)
        nibabel.save(change(image), target)
    return subject


def turned(image: Any) -> Any:
    """The same head, its axes permuted and two of them reversed: a sagittal acquisition."""
    return image.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))


def infer(invres: Invres, data: Path, output_dir: str, **options: Any) -> Any:
    run(invres.bundle, "inference", "quick", dataset_dir=data, output_dir=output_dir, **(options or invres.tiny))
    (file,) = Path(output_dir).glob("*.nii.gz")
    return nibabel.load(file)


def voxelwise(invres: Invres) -> dict[str, Any]:
    """Options, and a checkpoint, of a network that classifies each voxel by its first modality."""
    brats = invres.name == "brats"  # its normalised image: a voxel above 1 is bright
    network = torch.nn.Conv3d(4 if brats else 2, 3 if brats else 4, kernel_size=1)
    torch.nn.init.zeros_(network.weight)
    slopes, offsets = ([9, 9, 9], [0, 0, -9]) if brats else ([0, 0, 10, 20], [-99, 0, 5, -5])
    network.weight.data[:, 0, 0, 0, 0] = torch.tensor(slopes).float()
    network.bias.data = torch.tensor(offsets).float()
    torch.save(network.state_dict(), "voxelwise.pt")
    layer = {"_target_": "torch.nn.Conv3d", "kernel_size": 1}
    layer |= {"in_channels": network.in_channels, "out_channels": network.out_channels}
    return {"network_def": layer, "checkpoint": "voxelwise.pt", "spacing": invres.tiny["spacing"]}


def test_axes_may_have_any_order(invres_here: Path, invres: Invres) -> None:
    """The mask of the turned image is the turned mask."""
    rewritten(invres, invres_here / "plain", lambda image: image)
    rewritten(invres, invres_here / "turned", turned)
    plain, found = (infer(invres, invres_here / name, f"out_{name}") for name in ("plain", "turned"))
    wanted = turned(plain)
    assert found.shape == wanted.shape != plain.shape
    np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-4)
    np.testing.assert_array_equal(found.dataobj, wanted.dataobj)
    assert len(np.unique(plain.dataobj)) > 1


ANGLE = math.radians(30)
TURN = np.array([[math.cos(ANGLE), -math.sin(ANGLE), 0], [math.sin(ANGLE), math.cos(ANGLE), 0], [0, 0, 1]])
DIRECTIONS = {
    "anisotropic": np.diag([2.0, 3, 6]),
    "oblique": TURN @ np.diag([-3.0, 4, 5]),
    "sagittal": TURN @ np.array([[0, 0, 6.0], [-4, 0, 0], [0, 2, 0]]),
}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_voxels_may_have_any_size_and_direction(invres_here: Path, invres: Invres, direction: str) -> None:
    """A ball at a place in mm, in a head: the mask has its place and size, and the affine of the input."""
    affine, shape = np.eye(4), np.array([160, 160, 160]) // np.linalg.norm(DIRECTIONS[direction], axis=0)
    affine[:3, :3] = DIRECTIONS[direction]
    affine[:3, 3] = [5, -3, 2] - affine[:3, :3] @ (shape / 2)
    place = np.einsum("ij,j...->i...", affine[:3, :3], np.indices(shape.astype(int))) + affine[:3, 3, None, None, None]
    ball = np.linalg.norm(place - np.array([20, 8, -10])[:, None, None, None], axis=0) < 30
    head = 100 * (np.linalg.norm(place, axis=0) < 65) + 100 * ball
    rewritten(invres, invres_here / "data", lambda image: nibabel.Nifti1Image(head.astype(np.float32), affine))
    found = infer(invres, invres_here / "data", "out", **voxelwise(invres))
    assert found.shape == ball.shape
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)
    np.testing.assert_allclose(found.header.get_zooms(), np.linalg.norm(affine[:3, :3], axis=0), rtol=1e-5)
    assert dice(np.asarray(found.dataobj) == max(invres.labels), ball) > 0.93


def test_dicom_series(invres_here: Path, invres: Invres) -> None:
    """Folders of one series each give the mask of the same images in NIfTI, up to the rounding of the grey values."""
    sitk = pytest.importorskip("SimpleITK", reason="pip install monai-invertible[data]")
    pytest.importorskip("itk", reason="pip install monai-invertible[data]")
    subject = rewritten(invres, invres_here / "nifti", lambda image: image)
    for file in (invres_here / "nifti").rglob("*.nii.gz"):
        image = sitk.Cast(sitk.Round(sitk.ReadImage(str(file))), sitk.sitkInt16)
        sitk.WriteImage(sitk.Cast(image, sitk.sitkFloat32), str(file))
        folder = invres_here / "dicom" / file.relative_to(invres_here / "nifti").with_name(file.name.partition(".")[0])
        folder.mkdir(parents=True)
        write_series(sitk, image, folder)
    wanted, found = (infer(invres, invres_here / name, f"out_{name}") for name in ("nifti", "dicom"))
    assert sorted(os.listdir("out_dicom")) == [f"{subject}.nii.gz", f"{subject}.png"]
    # a DICOM series has its rows and columns in LPS: compare in one orientation
    wanted, found = (nibabel.as_closest_canonical(image) for image in (wanted, found))
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found.affine, wanted.affine, atol=1e-2)
    assert (np.asarray(found.dataobj) == np.asarray(wanted.dataobj)).mean() > 0.999


def write_series(sitk: Any, image: Any, folder: Path) -> None:
    """One DICOM file a slice, as a scanner exports them."""
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = image.GetDirection()
    for index in range(image.GetDepth()):
        piece = image[:, :, index]
        position = image.TransformIndexToPhysicalPoint((0, 0, index))
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"1.2.3.{index + 1}",
            "0008|0060": "MR",
            "0018|0050": f"{image.GetSpacing()[2]:.6f}",
            "0020|000d": "1.2.3.1000",
            "0020|000e": "1.2.3.1000.1",
            "0020|0013": str(index),
            "0020|0032": "\\".join(f"{x:.6f}" for x in position),
            "0020|0037": "\\".join(f"{direction[i]:.6f}" for i in (0, 3, 6, 1, 4, 7)),
        }
        for tag, value in tags.items():
            piece.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{index:04d}.dcm"))
        writer.Execute(piece)


def test_subject_without_foreground(invres_here: Path, invres: Invres, tmp_path: Path) -> None:
    """A healthy subject, and an empty image, have scores: the rules of the BraTS challenge."""
    data = shutil.copytree(invres.data, tmp_path / "data")
    (item,) = invres.items("validation", data)
    for path in (*item["image"], item["label"]):
        image = nibabel.load(path)
        nibabel.save(image.__class__(np.zeros_like(np.asarray(image.dataobj)), image.affine, image.header), path)
    flow = run(
        invres.bundle, "train", "quick", "evaluate", **{**invres.training, "dataset_dir": data, "overwrite": True}
    )
    assert flow.evaluator.state.metrics["dice"] == 1 and flow.evaluator.state.metrics["hd95"] == 0
    assert not np.asarray(nibabel.load(f"eval/{item['subject']}.nii.gz").dataobj).any()
