"""The two segmentation bundles: all their config files run, and what is written is what is scored.

Everything runs at the smallest size, on sample data, from a directory that is not the bundle's. Geometry and
interruptions have files of their own.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import matplotlib.image
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from scipy.ndimage import binary_erosion, distance_transform_edt

from tests.bundles.helper import ROOT, config_files, foreign_directory, run, workflow
from tests.bundles.invres import Invres, dice


def test_train(invres_trained: Path, invres: Invres) -> None:
    assert sorted(path.name for path in (invres_trained / "models").iterdir()) == ["model.pt", "resume.pt"]
    network = workflow(invres.bundle, "inference", "quick", **invres.tiny).network_def
    network.load_state_dict(torch.load(invres_trained / "models" / "model.pt", weights_only=True))
    assert list((invres_trained / "eval").glob("events.out.tfevents.*"))


def distance(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Hausdorff distance by scipy alone, from surface to surface."""
    if not (a.any() and b.any()):
        return float(np.linalg.norm(np.multiply(a.shape, spacing))) if a.any() or b.any() else 0.0
    edges = [x & ~binary_erosion(x) for x in (a, b)]
    return max(
        distance_transform_edt(~edges[1], spacing)[edges[0]].max(),
        distance_transform_edt(~edges[0], spacing)[edges[1]].max(),
    )


def test_evaluate(invres_here: Path, invres: Invres) -> None:
    """The scores are those of the files that are written, by numpy and scipy alone, in the subject's geometry."""
    shutil.rmtree("eval")
    flow = workflow(invres.bundle, "train", "quick", "evaluate", **invres.training)
    assert flow.check_properties() == []
    flow.run()
    flow.finalize()
    (item,) = invres.items("validation")
    subject = item["subject"]
    truth, found = nibabel.load(item["label"]), nibabel.load(f"eval/{subject}.nii.gz")
    np.testing.assert_allclose(found.affine, truth.affine, atol=1e-4)
    assert found.shape == truth.shape[:3] and found.header.get_xyzt_units()[0] == "mm"
    a, b = np.asarray(found.dataobj), np.asarray(truth.dataobj).reshape(found.shape)
    assert a.dtype == np.uint8 and set(np.unique(a)) <= invres.labels
    with open("eval/scores.csv", encoding="utf-8") as file:
        row, mean = csv.DictReader(file)
    assert row["subject"] == subject and mean["subject"] == "mean" and list(row.values())[1:] == list(mean.values())[1:]
    for name, values in invres.classes.items():
        masks = np.isin(a, values), np.isin(b, values)
        spacing = tuple(float(size) for size in truth.header.get_zooms()[:3])
        assert float(row[f"dice_{name}"]) == pytest.approx(dice(*masks), rel=1e-4, abs=1e-6)
        assert float(row[f"hd100_{name}"]) == pytest.approx(distance(*masks, spacing), rel=1e-4)
        assert float(row[f"hd95_{name}"]) <= float(row[f"hd100_{name}"])
        assert flow.evaluator.state.metrics[f"dice_{name}"] == pytest.approx(float(row[f"dice_{name}"]), rel=1e-4)
    for picture in ("worst", "median"):
        assert matplotlib.image.imread(f"eval/{picture}.png").shape[1] == 990


def test_inference(invres_here: Path, invres: Invres) -> None:
    """The folder as it is distributed; the same label maps as in the evaluation."""
    flow = workflow(invres.bundle, "inference", "quick", dataset_dir=invres.data, **invres.tiny)
    assert flow.check_properties() == []
    flow.run()
    flow.finalize()
    names = [item["subject"] for item in invres.items()]
    assert sorted(os.listdir("segmentations")) == sorted(
        f"{name}{end}" for name in names for end in (".nii.gz", ".png")
    )
    run(invres.bundle, "train", "quick", "evaluate", **invres.training)
    (item,) = invres.items("validation")
    one, other = (nibabel.load(f"{place}/{item['subject']}.nii.gz") for place in ("segmentations", "eval"))
    np.testing.assert_array_equal(one.dataobj, other.dataobj)


@pytest.mark.parametrize("names", [("vae",), ("partially", "vae"), ("baseline",), ("persistent",)], ids="-".join)
def test_every_model_trains_evaluates_and_infers(names: tuple[str, ...], invres: Invres, tmp_path: Path) -> None:
    with foreign_directory(tmp_path):
        options = {**invres.training, "epochs": 1, "patches_per_volume": 1}
        flow = workflow(invres.bundle, "train", *names, "quick", **options)
        assert flow.check_properties() == []
        flow.run()
        evaluated = run(invres.bundle, "train", *names, "quick", "evaluate", **options).evaluator.state.metrics
        trained = flow.evaluator.state.metrics
        assert {name: evaluated[name] for name in trained} == pytest.approx(trained)
        if "persistent" in names:
            assert len(list(Path("cache").glob("*.pt"))) == 4
        else:
            options = {**invres.tiny, "section": "validation", "folds": 4, "dataset_dir": invres.data}
            run(invres.bundle, "inference", *names, "quick", **options)
            assert len(os.listdir("segmentations")) == 2


def test_a_patch_is_drawn_anew_and_repeats_with_the_seed(invres: Invres) -> None:
    """The cache holds what was read, once a subject, not the patches."""

    def epoch(flow: Any) -> torch.Tensor:
        return torch.cat([item["image"].as_tensor() for item in flow.parser.get_parsed_content("train#dataloader")])

    options = {**invres.training, "batch_size": 1, "train__dataloader__shuffle": False}
    first = workflow(invres.bundle, "train", "quick", **options)
    one, two = epoch(first), epoch(first)
    assert len(one) == 6 and not torch.equal(one, two)
    assert len(first.parser.get_parsed_content("train#dataset")._cache) == 3
    assert torch.equal(one, epoch(workflow(invres.bundle, "train", "quick", **options)))
    assert not torch.equal(one, epoch(workflow(invres.bundle, "train", "quick", seed=1, **options)))


def test_bias_field_correction(invres: Invres, invres_here: Path) -> None:
    if invres.name == "brats":
        pytest.skip("an option of iSeg")
    pytest.importorskip("SimpleITK", reason="pip install monai-invertible[data]")
    options = {**invres.tiny, "dataset_dir": invres.data, "section": "validation", "folds": 4}
    plain, corrected = (
        workflow(invres.bundle, "inference", "quick", correct_bias=correct, **options).parser
        for correct in (False, True)
    )
    images = [parser.get_parsed_content("dataset")[0]["image"] for parser in (plain, corrected)]
    assert images[0].shape == images[1].shape and not torch.allclose(*images)
    run(invres.bundle, "inference", "quick", correct_bias=True, **options)


# --------------------------------------------------------------------------------------------------------- config files


def parsed(invres: Invres, *names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(config_files(invres.bundle, *names))
    return parser


def test_default_is_the_model_of_the_paper(invres: Invres) -> None:
    """The same network and processing in training and inference; the label map of the data set."""
    train, inference = parsed(invres, "train"), parsed(invres, "inference")
    networks = [parser.get_parsed_content("network_def") for parser in (train, inference)]
    assert networks[0].state_dict().keys() == networks[1].state_dict().keys()
    assert type(networks[0]).__name__ == "FullyInvertibleUNet"
    assert train.get_parsed_content("classes") == inference.get_parsed_content("classes") == invres.classes
    assert set(train["label_values"]) == invres.labels and train["learning_rate"] == 2e-4
    for key in ("spacing", "roi_size", "overlap", "inferer", "folds", "fold"):
        assert train[key] == inference[key], key
    validate = train["validate"]
    assert validate["preprocessing"]["transforms"][1:] == inference["preprocessing"]["transforms"][1:]
    text = json.dumps(validate["postprocessing"]).replace("@validate::", "@")
    assert json.loads(text) == inference["postprocessing"]


def test_bundles_are_alike() -> None:
    """What need not differ does not."""
    folders = [ROOT / "bundles" / f"{name}_invres_segmentation" for name in ("brats", "iseg")]
    names = [sorted(path.name for path in folder.glob("configs/*")) for folder in folders]
    assert names[0] == names[1]
    for name in {*names[0]} - {"train.json", "inference.json", "quick.json", "metadata.json"}:
        assert len({(folder / "configs" / name).read_text(encoding="utf-8") for folder in folders}) == 1, name
    keys = [json.loads((folder / "configs/train.json").read_text(encoding="utf-8")).keys() for folder in folders]
    assert keys[0] ^ keys[1] == {"deform_prob", "correct_bias"}
