"""The bundle of the invertible diffusion model: all its config files run, and scores are those of what is written.

Everything runs at the smallest size, on sample data, from a directory that is not the bundle's.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from tests.bundles.helper import (
    ROOT,
    TORCHRUN,
    command,
    config_files,
    foreign_directory,
    killed_and_resumed,
    last_line,
    run,
    workflow,
)

BUNDLE = ROOT / "bundles" / "brats_idm_generation"
TINY: dict[str, Any] = {
    "network_def__channels": [8, 8],
    "network_def__strides": [2],
    "spacing": [10.0] * 3,
    "roi_size": [16] * 3,
    "folds": 2,
    "steps": 3,
}
MONAIS = {"network_def__num_res_blocks": 1, "network_def__strides": None}
TRAINING: dict[str, Any] = {
    **TINY,
    "epochs": 2,
    "patches_per_volume": 2,
    "val_interval": 1,
    "val_timesteps": [100, 900],
    "ms_ssim_weights": [0.5, 0.5],
}


@pytest.fixture(scope="module", params=["unconditional", "conditional"])
def names(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return () if request.param == "unconditional" else ("conditional",)


@pytest.fixture(scope="module")
def trained(names: tuple[str, ...], brats_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the bundle was trained for two epochs. Not to be written to."""
    with foreign_directory(tmp_path_factory.mktemp("trained")) as folder:
        flow = workflow(BUNDLE, "train", *names, "quick", dataset_dir=brats_folder, **TRAINING)
        assert flow.check_properties() == []
        flow.run()
        flow.finalize()
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    with foreign_directory(tmp_path):
        yield tmp_path


def volume(file: str | Path) -> np.ndarray:
    return nibabel.load(file).get_fdata(dtype=np.float32)


def test_train(trained: Path, names: tuple[str, ...]) -> None:
    """The averaged weights are kept; the last ones and both optimizers' states are for going on."""
    assert sorted(path.name for path in (trained / "models").iterdir()) == ["model.pt", "resume.pt"]
    network = workflow(BUNDLE, "inference", *names, "quick", **TINY).network_def
    best, last = (torch.load(trained / "models" / f"{name}.pt", weights_only=True) for name in ("model", "resume"))
    network.load_state_dict(best)
    changed = [key for key in best if not torch.equal(last["network"][key], last["averaged"][key])]
    assert changed and last["averaged"].keys() == best.keys()
    assert list((trained / "eval").glob("events.out.tfevents.*"))


def test_evaluate(here: Path, names: tuple[str, ...], brats_folder: Path) -> None:
    """Scores by numpy alone, from the files that are written and the noise of the schedule's definition."""
    shutil.rmtree("eval")
    flow = workflow(BUNDLE, "train", *names, "quick", "evaluate", dataset_dir=brats_folder, **TRAINING)
    assert flow.check_properties() == []
    flow.run()
    flow.finalize()
    items = flow.parser.get_parsed_content("validate#dataset")
    with open("eval/noise.csv", encoding="utf-8") as file:
        noise = {row["subject"]: row for row in csv.DictReader(file)}
    prepare, network = flow.evaluator.prepare_batch, flow.network_def.eval()
    products = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    for item in items:
        image, condition = (item[key].as_tensor()[None] for key in ("image", "condition"))
        assert image.shape == (1, 1, 16, 16, 16) and condition.shape[1] == len(names)
        assert image.min() == -1 and image.max() == 1 and (image == -1).sum() > 100
        _, noises, _, _ = prepare({"image": image, "condition": condition, "subject": [item["subject"]]})
        for channel, step in enumerate((100, 900)):
            wanted = noises[:, [channel]]
            noisy = products[step] ** 0.5 * image + (1 - products[step]) ** 0.5 * wanted
            with torch.no_grad():
                velocity = network(torch.cat([noisy, condition], 1).float(), torch.tensor([step]))
            found = products[step] ** 0.5 * velocity + (1 - products[step]) ** 0.5 * noisy
            error = float((found - wanted).square().mean())
            assert float(noise[item["subject"]][f"noise_mse_{step}"]) == pytest.approx(error, rel=1e-3)
    subjects = [item["subject"] for item in items]
    assert set(noise) == {*subjects, "mean"}
    truths = [(item["image"].numpy()[0] + 1) / 2 for item in items]
    files = subjects if names else ["sample_001", "sample_002"]
    drawn = [volume(f"eval/{name}.nii.gz") for name in files]
    assert all(x.min() >= 0 and x.max() <= 1 and x.std() > 0.05 for x in drawn)
    assert sorted(path.stem for path in Path("eval").glob("*.png")) == sorted([*files, "mosaic"])
    if not names:
        (line,) = Path("eval/metrics.csv").read_text(encoding="utf-8").splitlines()
        means = [np.einsum("x,x->", a.ravel(), b.ravel()) for a, b in (truths, drawn)]
        cross = sum(float((a * b).sum()) for a in truths for b in drawn)
        assert float(line.split(",")[1]) == pytest.approx((sum(means) - cross / 2) / 16**3, rel=1e-3)
        assert not Path("eval/scores.csv").exists()
        return
    with open("eval/scores.csv", encoding="utf-8") as file:
        scores = {row["subject"]: row for row in csv.DictReader(file)}
    assert list(scores) == [*sorted(subjects), "mean"]
    for name, truth, found in zip(subjects, truths, drawn, strict=True):
        row = {key: float(value) for key, value in scores[name].items() if key != "subject"}
        assert row.keys() == {"psnr", "ssim", "ms_ssim", "mae"}
        assert row["mae"] == pytest.approx(np.abs(truth - found).mean(), rel=1e-3)
        assert row["psnr"] == pytest.approx(-10 * np.log10(np.square(truth - found).mean()), rel=1e-3)
        assert -1 < row["ssim"] < 1


def test_inference(here: Path, names: tuple[str, ...], brats_folder: Path) -> None:
    """What is drawn depends on the seed; it lies where its source lies."""
    drawn = []
    for seed in (0, 0, 1):
        options = {"dataset_dir": brats_folder, "section": "validation", "number": 2, "overwrite": True, **TINY}
        flow = workflow(BUNDLE, "inference", *names, "quick", seed=seed, **options)
        assert flow.check_properties() == []
        flow.run()
        flow.finalize()
        drawn.append([volume(file) for file in sorted(Path("samples").glob("*.nii.gz"))])
    files = sorted(path.name for path in Path("samples").glob("*.nii.gz"))
    assert len(os.listdir("samples")) == 5 and len(files) == 2
    for one, same, other in zip(*drawn, strict=True):
        assert one.shape == (16, 16, 16)
        np.testing.assert_array_equal(one, same)
        assert not np.allclose(one, other)
    assert not np.allclose(*drawn[0])
    found = nibabel.load(f"samples/{files[0]}")
    np.testing.assert_allclose(found.header.get_zooms(), 10, rtol=1e-5)
    assert "".join(nibabel.aff2axcodes(found.affine)) == "RAS"
    if names:
        subject = files[0].partition(".")[0]
        source = nibabel.load(brats_folder / subject / f"{subject}_t1.nii.gz")
        brain = np.argwhere(np.asarray(source.dataobj) > 0)
        middle = (nibabel.affines.apply_affine(source.affine, (brain.min(0), brain.max(0)))).mean(0)
        np.testing.assert_allclose(nibabel.affines.apply_affine(found.affine, [7.5] * 3), middle, atol=10)


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("patch",), {"patch_size": [8] * 3, "roi_size": [24] * 3}),
        (("conditional", "patch", "baseline"), {"patch_size": [8] * 3, **MONAIS}),
        (("whole_volume", "checkpointed"), {**MONAIS, "prediction_type": "epsilon"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_every_model_trains_and_draws(
    names: tuple[str, ...], options: dict[str, Any], brats_folder: Path, tmp_path: Path
) -> None:
    options = {key: value for key, value in {**TINY, **options}.items() if value is not None}
    training = {**TRAINING, **options, "epochs": 1, "dataset_dir": brats_folder}
    if any(name in names for name in ("baseline", "checkpointed")):
        del training["network_def__strides"]
    with foreign_directory(tmp_path):
        run(BUNDLE, "train", *names, "quick", **training)
        inference = {key: value for key, value in options.items() if key != "patch_size"}
        run(BUNDLE, "inference", *names, "quick", dataset_dir=brats_folder, section="validation", number=2, **inference)
        drawn = [volume(file) for file in Path("samples").glob("*.nii.gz")]
        assert [x.shape for x in drawn] == 2 * [tuple(options["roi_size"])]


def test_a_patch_knows_where_it_is(brats_folder: Path) -> None:
    """Its voxels are those of the volume at its coordinates."""
    options = {**TRAINING, "dataset_dir": brats_folder, "patch_size": [8] * 3, "roi_size": [24] * 3}
    flow = workflow(BUNDLE, "train", "conditional", "patch", "quick", **options)
    patch = flow.parser.get_parsed_content("train#dataset")[0]
    transform = flow.parser.get_parsed_content("validate#preprocessing")
    whole = transform(flow.parser.get_parsed_content("train#data")[0])
    assert patch["image"].shape == (1, 8, 8, 8) and patch["condition"].shape == (4, 8, 8, 8)
    at = torch.round((patch["condition"][1:].as_tensor() + 0.5) * 23).long()
    for key in ("image", "condition"):
        assert torch.equal(whole[key].as_tensor()[:, at[0], at[1], at[2]], patch[key].as_tensor())
    assert len(at[0].unique()) == 8


def test_the_unclipped_brain_is_whole(brats_folder: Path) -> None:
    """Nothing of the volume is cut off in 256 voxels of 1 mm."""
    flow = workflow(BUNDLE, "train", "whole_volume", dataset_dir=brats_folder, folds=2, spacing=[5.0] * 3)
    flow.parser["roi_size"] = [52, 52, 52]
    image = flow.parser.get_parsed_content("validate#dataset")[0]["image"]
    item = flow.parser.get_parsed_content("validate#data")[0]
    assert int((image > -1).sum()) == pytest.approx(int((volume(item["image"][0]) > 0).sum()), rel=0.01)


def test_killed_and_resumed_as_if_never_interrupted(brats_folder: Path, tmp_path: Path) -> None:
    """The averaged weights go on, too."""
    options = {**TRAINING, "epochs": 3, "dataset_dir": brats_folder}
    _, one, other = killed_and_resumed(tmp_path, BUNDLE, "train", "quick", **options)
    torch.testing.assert_close(one["averaged"], other["averaged"])


def test_two_processes(brats_folder: Path, tmp_path: Path) -> None:
    """torchrun, gloo on a machine without GPU: one checkpoint, no trace of the wrapper in it."""
    options = {**TRAINING, "epochs": 1, "batch_size": 1, "dataset_dir": brats_folder}
    files = config_files(BUNDLE, "train", "quick", "multi_gpu_train")
    output = command(*TORCHRUN, cwd=tmp_path, config_file=files, **options)
    assert output.count("Saved checkpoint at epoch: 1") == 1
    (best,) = re.findall(r"Key metric: noise_mse best value: (\S+)", output)
    with foreign_directory(tmp_path):
        flow = run(BUNDLE, "train", "quick", "evaluate", **TRAINING, dataset_dir=brats_folder)
        assert float(best) == pytest.approx(flow.evaluator.state.metrics["noise_mse"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": "ddpm"}, r"ValueError: DiffusionSampler: DDPM takes the 1000 steps of the training, got steps=3"),
        ({"ckpt_dir": "nowhere"}, r"FileNotFoundError: CheckpointReader: nowhere/model.pt must be a checkpoint"),
        ({"sources": ["t3"]}, r"ValueError: brats_datalist: modalities must be some of flair, .*got \['t3'\]"),
    ],
    ids=["steps", "checkpoint", "contrast"],
)
def test_bad_options(
    options: dict[str, Any], message: str, brats_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with foreign_directory(tmp_path):
        line = last_line(
            BUNDLE, "inference", "quick", capsys=capsys, **{**TINY, "dataset_dir": brats_folder, **options}
        )
    assert re.match(f"error: {message}", line), line
