"""The fastMRI i-RIM bundle: all its config files run, can be interrupted, and fail with a word of advice.

Everything runs at the smallest size, on sample data, from a directory that is not the bundle's.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import matplotlib.image
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.bundle import load as load_bundle
from monai.bundle.scripts import ckpt_export, onnx_export, verify_metadata, verify_net_in_out
from torch import Tensor

import monai_invertible
from monai_invertible.networks import InvertibleRIM
from tests.bundles.helper import (
    ROOT,
    arguments,
    command,
    config_files,
    environment,
    foreign_directory,
    last_line,
    run,
    workflow,
)

BUNDLE = ROOT / "bundles" / "fastmri_irim_reconstruction"
CONFIGS = sorted((BUNDLE / "configs").glob("*.json"))
TINY: dict[str, Any] = {
    "network_def__steps": 1,
    "network_def__channels": 4,
    "network_def__hidden_channels": 4,
    "network_def__downsample": [1, 2],
}
TRAINING: dict[str, Any] = {
    **TINY,
    "field_of_view": [32, 32],
    "roi_size": [32, 32],
    "epochs": 2,
    "batch_size": 2,
}
ITERATIONS = 3  # an epoch: 2 subjects of 3 slices, in batches of 2


@pytest.fixture(scope="module")
def trained(fastmri_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the bundle was trained for two epochs. Not to be written to."""
    with foreign_directory(tmp_path_factory.mktemp("trained")) as folder:
        flow = workflow(BUNDLE, "train", "small", "quick", dataset_dir=fastmri_folder, **TRAINING)
        assert flow.check_properties() == []
        flow.run()
        flow.finalize()
        assert flow.trainer.state.epoch == 2 and flow.trainer.state.iteration == 2 * ITERATIONS
        return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Iterator[Path]:
    """The current directory: a copy of ``trained``."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    with foreign_directory(tmp_path):
        yield tmp_path


@pytest.fixture
def network() -> InvertibleRIM:
    """The bundle's network at the size of these tests, as inference builds it."""
    return workflow(BUNDLE, "inference", "small", **TINY).network_def.eval()


# ---------------------------------------------------------------------------------------------------------------- runs


def test_train(trained: Path, network: InvertibleRIM) -> None:
    assert sorted(path.name for path in (trained / "models").iterdir()) == ["model.pt", "resume.pt"]
    weights = torch.load(trained / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, Tensor) for value in weights.values())
    network.load_state_dict(weights)
    assert list((trained / "eval").glob("events.out.tfevents.*"))


def test_evaluate(here: Path, fastmri_folder: Path) -> None:
    shutil.rmtree("eval")
    names = ("train", "small", "quick", "evaluate")
    flow = workflow(BUNDLE, *names, dataset_dir=fastmri_folder, **TRAINING)
    assert flow.check_properties() == []
    flow.run()
    flow.finalize()
    scores = flow.evaluator.state.metrics
    with h5py.File("eval/file2000000.h5") as file, h5py.File(fastmri_folder / "singlecoil_val/file2000000.h5") as truth:
        image, reference = file["reconstruction"][()], truth["reconstruction_esc"][()]
    assert image.dtype == np.float32 and image.shape == reference.shape == (3, 32, 32)
    assert scores["nmse"] == pytest.approx(((image - reference) ** 2).sum() / (reference**2).sum(), rel=1e-4)
    picture = nibabel.load("eval/file2000000.nii.gz")
    assert picture.header.get_zooms() == (6.0, 6.0, 5.0) and np.array_equal(picture.affine, np.diag([6, 6, 5, 1]))
    np.testing.assert_array_equal(np.moveaxis(np.asarray(picture.dataobj), -1, 0), image)
    assert matplotlib.image.imread("eval/file2000000.png").shape[1] == 1200  # four panels
    header, row, mean = Path("eval/scores.csv").read_text().split()
    assert header == "filename,nmse,psnr,ssim" and row.startswith("file2000000.h5,") and mean.startswith("mean,")


def test_zero_filled_needs_no_checkpoint(tmp_path: Path, fastmri_folder: Path) -> None:
    with foreign_directory(tmp_path):
        flow = run(BUNDLE, "train", "quick", "evaluate", "zero_filled", dataset_dir=fastmri_folder)
        assert 10 < flow.evaluator.state.metrics["psnr"] < 40
        assert Path("eval/file2000000.h5").exists() and not Path("models").exists()


def test_inference(here: Path, fastmri_folder: Path) -> None:
    """Files that are under-sampled keep their own mask; for the others it is drawn."""
    folder = fastmri_folder / "singlecoil_test"
    flow = workflow(BUNDLE, "inference", "small", dataset_dir=folder, **TINY)
    assert flow.check_properties() == []
    with h5py.File(folder / "file3000000.h5") as file:
        np.testing.assert_array_equal(flow.parser.get_parsed_content("dataset")[0]["mask"].flatten(), file["mask"][()])
    flow.run()
    flow.finalize()
    for name in ("file3000000", "file3000001"):
        with h5py.File(f"reconstructions/{name}.h5") as file:
            assert file["reconstruction"].shape == (3, 32, 32) and np.isfinite(file["reconstruction"]).all()
        assert nibabel.load(f"reconstructions/{name}.nii.gz").shape == (32, 32, 3)
        assert matplotlib.image.imread(f"reconstructions/{name}.png").shape[1] == 600  # two panels: no reference
    options = {"center_fractions": [0.5], "accelerations": [1], **TINY}
    flow = workflow(BUNDLE, "inference", "small", dataset_dir=fastmri_folder / "singlecoil_val", **options)
    assert flow.parser.get_parsed_content("dataset")[0]["mask"].all()  # acceleration 1


@pytest.mark.parametrize(
    ("names", "override"),
    [
        (("small",), {"network_def__steps": 1}),
        (("rim",), {"network_def__channels": 4}),
        (("unet",), {"network_def__channels": 2}),
        (("volume",), {**TINY, "network_def__downsample": [1, 2], "roi_size": [3, 32, 32], "min_slices": 3}),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_model_trains_evaluates_and_infers(
    names: tuple[str, ...], override: dict[str, Any], tmp_path: Path, fastmri_folder: Path
) -> None:
    with foreign_directory(tmp_path):
        options = {
            "field_of_view": [32, 32],
            "roi_size": [32, 32],
            "epochs": 1,
            "dataset_dir": fastmri_folder,
            **override,
        }
        flow = workflow(BUNDLE, "train", *names, "quick", **options)
        assert flow.check_properties() == []
        flow.run()
        trained = flow.evaluator.state.metrics
        evaluated = run(BUNDLE, "train", *names, "quick", "evaluate", **options).evaluator.state.metrics
        assert evaluated == pytest.approx(trained) and trained.keys() == {"nmse", "psnr", "ssim"}
        inference = {key: value for key, value in override.items() if key.startswith("network_def")}
        run(BUNDLE, "inference", *names, dataset_dir=fastmri_folder / "singlecoil_test", **inference)
        with h5py.File("reconstructions/file3000001.h5") as file:
            assert file["reconstruction"].shape == (3, 32, 32)


def test_a_seed_repeats_a_run_and_epochs_differ(tmp_path: Path, fastmri_folder: Path) -> None:
    """The cache holds what was read, not crops and masks."""

    def epoch(flow: Any) -> Tensor:
        return torch.cat([item["kspace"] for item in flow.parser.get_parsed_content("train#dataloader")])

    with foreign_directory(tmp_path):
        options = {**TRAINING, "roi_size": [24, 24], "dataset_dir": fastmri_folder, "train__dataloader__shuffle": False}
        first = workflow(BUNDLE, "train", "small", "quick", **options)
        one, two = epoch(first), epoch(first)
        assert not torch.equal(one, two)
        assert torch.equal(one, epoch(workflow(BUNDLE, "train", "small", "quick", **options)))
        assert not torch.equal(one, epoch(workflow(BUNDLE, "train", "small", "quick", seed=1, **options)))


def test_default_is_the_model_of_the_paper() -> None:
    """8 steps of 1,430,528 parameters, the same network in training and inference."""
    networks = []
    for name in ("train", "inference"):
        parser = ConfigParser()
        parser.read_config(config_files(BUNDLE, name))
        networks.append(parser.get_parsed_content("network_def"))
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == [8 * 1_430_528] * 2
    assert networks[0].state_dict().keys() == networks[1].state_dict().keys()


# -------------------------------------------------------------------------------------------------------- interruption


def resume(folder: Path, **override: Any) -> Any:
    return run(
        BUNDLE, "train", "small", "quick", dataset_dir=folder, resume=True, **{**TRAINING, "epochs": 4, **override}
    )


def test_resume_goes_on_where_it_was(here: Path, fastmri_folder: Path) -> None:
    flow = resume(fastmri_folder)
    assert flow.trainer.state.epoch == 4 and flow.trainer.state.iteration == 4 * ITERATIONS
    assert torch.load("models/resume.pt", weights_only=True)["trainer"]["iteration"] == 4 * ITERATIONS
    assert sorted(os.listdir("models")) == ["model.pt", "resume.pt"]


def test_resume_remembers_the_best_score(here: Path, fastmri_folder: Path) -> None:
    """A worse network does not replace model.pt, a better one does."""
    best, state = Path("models/model.pt"), torch.load("models/resume.pt", weights_only=True)
    before = best.stat()
    for score, replaced in ((99.0, False), (-99.0, True)):
        state["best"]["_saved"] = [(score, "model.pt")]
        torch.save(state, "models/resume.pt")
        resume(fastmri_folder, epochs=3)
        assert (best.stat().st_mtime_ns > before.st_mtime_ns) is replaced


def test_diverging_training_keeps_the_last_checkpoint(
    here: Path, fastmri_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    state = torch.load("models/resume.pt", weights_only=True)
    state["optimizer"]["param_groups"][0]["lr"] = math.inf
    torch.save(state, "models/resume.pt")
    before = {name: Path("models", name).read_bytes() for name in ("model.pt", "resume.pt")}
    options = {**TRAINING, "dataset_dir": fastmri_folder, "epochs": 4, "resume": True, "capsys": capsys}
    line = last_line(BUNDLE, "train", "small", "quick", **options)
    assert re.match(
        r"error: FloatingPointError: FiniteLossHandler: the loss must be finite, got .* learning rate", line
    )
    assert {name: Path("models", name).read_bytes() for name in before} == before


KILLED = """
import os, signal, sys, torch
save, saved = torch.save, []
def half(checkpoint, path, *args, **kwargs):
    save(checkpoint, path, *args, **kwargs)
    saved.append(str(path))
    if sum(name.endswith("resume.pt") for name in saved) == 2:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
torch.save = half
import fire, monai.bundle
fire.Fire(monai.bundle.run)
"""


def test_killed_and_resumed_as_if_never_interrupted(tmp_path: Path, fastmri_folder: Path) -> None:
    """SIGKILL in the middle of the second checkpoint: the first is whole; resumed from it, training repeats itself."""
    options = {**TRAINING, "dataset_dir": fastmri_folder, "epochs": 3, "roi_size": [24, 24]}
    files = config_files(BUNDLE, "train", "small", "quick")
    process = arguments("-c", KILLED, config_file=files, **options)
    done = subprocess.run(process, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert torch.load(tmp_path / "models" / "resume.pt", weights_only=True)["trainer"]["iteration"] == ITERATIONS
    with foreign_directory(tmp_path):
        resumed = run(BUNDLE, "train", "small", "quick", resume=True, **options)
        whole = run(BUNDLE, "train", "small", "quick", ckpt_dir=tmp_path / "whole", **options)
        assert resumed.evaluator.state.metrics == pytest.approx(whole.evaluator.state.metrics, rel=1e-6)
        for name in ("model.pt", "resume.pt"):
            one, other = (torch.load(Path(place, name), weights_only=True) for place in ("models", "whole"))
            torch.testing.assert_close(one.get("network", one), other.get("network", other))


def test_command_line_stopped_by_the_user(tmp_path: Path, fastmri_folder: Path) -> None:
    """``python -m monai.bundle run``; Ctrl-C leaves whole checkpoints and says what happened."""
    options = {**TRAINING, "dataset_dir": fastmri_folder, "epochs": 100_000}
    files = config_files(BUNDLE, "train", "small", "quick")
    process = subprocess.Popen(
        arguments("-m", "monai.bundle", "run", config_file=files, **options),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # a shell's background job, in which the tests may run, ignores Ctrl-C, and so would its children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 100
        while not (tmp_path / "models" / "resume.pt").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode != 0 and "KeyboardInterrupt" in output.strip().splitlines()[-1]
    assert torch.load(tmp_path / "models" / "resume.pt", weights_only=True)["trainer"]["iteration"] % ITERATIONS == 0
    torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert sorted(os.listdir(tmp_path / "models")) == ["model.pt", "resume.pt"]


RUNS = """
import sys, monai.bundle
for override in eval(sys.argv[1]):
    monai.bundle.run(**override)
"""


def test_two_processes(tmp_path: Path, fastmri_folder: Path) -> None:
    """torchrun, gloo on a machine without GPU: one checkpoint, no trace of the wrapper in it, the whole validation; a
    resumed training repeats an uninterrupted one."""
    options = {**TRAINING, "dataset_dir": str(fastmri_folder), "batch_size": 1, "seed": 3, "lr_scheduler__T_max": 2}
    options = {key.replace("__", "#"): value for key, value in options.items()}
    options["config_file"] = config_files(BUNDLE, "train", "small", "quick", "multi_gpu_train")
    seeds = ["$monai.utils.set_determinism(seed=@seed + dist.get_rank())"]  # one process group for all three
    runs = [
        {"ckpt_dir": "whole", "finalize": []},
        {"epochs": 1, "initialize": seeds, "finalize": []},
        {"resume": True, "initialize": seeds},
    ]
    (tmp_path / "runs.py").write_text(RUNS)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "runs.py")
    output = command(*launcher, repr([{**options, **override} for override in runs]), cwd=tmp_path)
    assert output.count("Saved checkpoint at epoch: 1") == output.count("Saved checkpoint at epoch: 2") == 2
    one, other = (torch.load(tmp_path / place / "resume.pt", weights_only=True) for place in ("models", "whole"))
    assert one["trainer"]["iteration"] == 6  # 6 slices, 2 processes
    torch.testing.assert_close(one["network"], other["network"])
    with foreign_directory(tmp_path):
        network = workflow(BUNDLE, "train", "small", **TINY).network_def
        network.load_state_dict(torch.load("models/model.pt", weights_only=True))
        flow = run(BUNDLE, "train", "small", "quick", "evaluate", **TRAINING, dataset_dir=fastmri_folder)
    best = max(float(value) for value in re.findall(r"Key metric: psnr best value: (\S+)", output))
    assert best == pytest.approx(flow.evaluator.state.metrics["psnr"])


# -------------------------------------------------------------------------------------------- MONAI's verbs and loading


def schema() -> Path:
    places = [os.environ.get("MONAI_BUNDLE_SCHEMA", ""), ROOT.parent / "shared/schema/meta_schema_20240725.json"]
    found = [Path(place) for place in places if place and Path(place).is_file()]
    if not found:
        pytest.skip("no metadata schema here, and no download in tests: set MONAI_BUNDLE_SCHEMA to its file")
    return found[0]


def test_verify_metadata(tmp_path: Path) -> None:
    place = shutil.copy(schema(), tmp_path / "schema.json")  # MONAI takes a file that is there instead of its URL
    hash_val = hashlib.sha256(place.read_bytes()).hexdigest()
    meta_file = str(BUNDLE / "configs/metadata.json")
    verify_metadata(meta_file=meta_file, filepath=place, hash_val=hash_val, hash_type="sha256")


@pytest.mark.parametrize("names", [("inference",), ("inference", "small"), ("inference", "rim"), ("inference", "unet")])
def test_verify_net_in_out(names: tuple[str, ...]) -> None:
    size = {"n": 4} if "unet" in names else {}
    if "unet" in names:  # a magnitude: one channel; the metadata describe the main network
        size["_meta_#network_data_format#outputs#pred#num_channels"] = 1
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(BUNDLE / "configs/metadata.json"),
        config_file=config_files(BUNDLE, *names),
        device="cpu",
        **size,
    )


EXPORT: dict[str, Any] = {
    "net_id": "network_def",
    "config_file": config_files(BUNDLE, "inference", "small"),
    "meta_file": str(BUNDLE / "configs/metadata.json"),
    **{key.replace("__", "#"): value for key, value in TINY.items()},
}


@pytest.fixture
def undersampled() -> Tensor:
    """k-space of a size that the exporters have not seen."""
    kspace = torch.randn(1, 1, 40, 36, 2, generator=torch.Generator().manual_seed(0))
    kspace[:, :, :, ::3] = 0
    return kspace


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # MONAI 1.6 exports by TorchScript
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # names every check of a shape
def test_ckpt_export(here: Path, network: InvertibleRIM, undersampled: Tensor) -> None:
    ckpt_export(filepath="model.ts", ckpt_file="models/model.pt", **EXPORT)
    network.load_state_dict(torch.load("models/model.pt", weights_only=True))
    script = torch.jit.load("model.ts")
    with torch.no_grad():
        torch.testing.assert_close(script(undersampled), network(undersampled), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`isinstance.treespec, LeafSpec:FutureWarning")  # torch.onnx about torch itself
def test_onnx_export(here: Path, network: InvertibleRIM, undersampled: Tensor) -> None:
    pytest.importorskip("onnxscript", reason="pip install monai-invertible[export]")
    runtime = pytest.importorskip("onnxruntime", reason="pip install monai-invertible[export]")
    onnx_export(filepath="model.onnx", ckpt_file="models/model.pt", input_shape=[1, 1, 40, 36, 2], **EXPORT)
    network.load_state_dict(torch.load("models/model.pt", weights_only=True))
    session = runtime.InferenceSession("model.onnx")
    (image,) = session.run(None, {session.get_inputs()[0].name: undersampled.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(image), network(undersampled), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI: trust it, it runs code
def test_load_from_python(here: Path) -> None:
    """``monai.bundle.load`` of a bundle on disk that holds a checkpoint; no network access."""
    shutil.copytree(BUNDLE, "fastmri_irim_reconstruction")
    shutil.copytree("models", "fastmri_irim_reconstruction/models")
    override = {key.partition("__")[2]: value for key, value in TINY.items()}
    for kind in ("train", "inference"):
        network = load_bundle(
            "fastmri_irim_reconstruction",
            bundle_dir=".",
            workflow_type=kind,
            source="github",
            device="cpu",
            net_override=override,
        )
        weights = torch.load("models/model.pt", weights_only=True)
        assert isinstance(network, InvertibleRIM)
        assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())


def test_bare_names_once_imported() -> None:
    """What other people's configs may write."""
    parser = ConfigParser({"net": {"_target_": "InvertibleRIM", "steps": 1, "channels": 4, "downsample": [1]}})
    assert isinstance(parser.get_parsed_content("net"), InvertibleRIM)
    assert isinstance(ConfigParser({"x": {"_target_": "ResumeCheckpointSaver"}})["x"], dict)


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.fixture
def damaged(fastmri_folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the sample set that a test may damage; the current directory is another one."""
    shutil.copytree(fastmri_folder, tmp_path / "data")
    (tmp_path / "work").mkdir()
    with foreign_directory(tmp_path / "work"):
        yield tmp_path / "data"


def damage(data: Path, kind: str) -> Path:
    """Damage the first training volume, or the folder."""
    file = data / "singlecoil_train" / "file1000000.h5"
    if kind == "no folder":
        shutil.rmtree(file.parent)
    elif kind == "empty folder":
        for path in file.parent.iterdir():
            path.unlink()
    elif kind == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    else:
        with h5py.File(file, "r+") as volume:
            if kind == "no kspace":
                del volume["kspace"]
            elif kind == "NaN":
                volume["kspace"][0, 0, 0] = np.nan
            else:
                volume["mask"] = np.ones(5, dtype=np.float32)
    return file


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no folder", "FileNotFoundError: fastMRI folder {folder} does not exist. Give the folder"),
        ("empty folder", "ValueError: fastMRI folder {folder} holds no .h5 file. Give the folder"),
        ("truncated", "OSError: {file}: the HDF5 file cannot be read .* download it again"),
        ("no kspace", 'ValueError: {file}: a fastMRI volume must have "kspace", got .* Take the original file'),
        ("NaN", "ValueError: {file}: k-space must be finite, got NaN or Inf in slice 0. Take the original file"),
        ("other mask", "ValueError: {file}: the mask must have one value a column of k-space, got 5 for .* Take mask"),
    ],
)
def test_bad_data(damaged: Path, kind: str, message: str, capsys: pytest.CaptureFixture) -> None:
    file = damage(damaged, kind)
    line = last_line(BUNDLE, "train", "small", "quick", dataset_dir=damaged, capsys=capsys, **TRAINING)
    assert re.match("error: " + message.format(file=file, folder=file.parent), line)


def test_a_damaged_data_set_leaves_nothing_behind(damaged: Path, capsys: pytest.CaptureFixture) -> None:
    damage(damaged, "truncated")
    last_line(BUNDLE, "train", "small", "quick", dataset_dir=damaged, capsys=capsys, **TRAINING)
    assert not list(Path("models").glob("*.pt")) if Path("models").exists() else True


def test_no_checkpoint(tmp_path: Path, fastmri_folder: Path, capsys: pytest.CaptureFixture) -> None:
    with foreign_directory(tmp_path):
        missing = r"error: FileNotFoundError: CheckpointReader: \./models/{} must be a checkpoint, .* Train first, or"
        options = {**TRAINING, "dataset_dir": fastmri_folder, "capsys": capsys}
        line = last_line(BUNDLE, "train", "small", "quick", "evaluate", **options)
        assert re.match(missing.format("model.pt"), line)
        assert re.match(
            missing.format("resume.pt"), last_line(BUNDLE, "train", "small", "quick", resume=True, **options)
        )
        folder = fastmri_folder / "singlecoil_test"
        assert re.match(missing.format("model.pt"), last_line(BUNDLE, "inference", dataset_dir=folder, capsys=capsys))


def test_wrong_checkpoint(here: Path, fastmri_folder: Path, capsys: pytest.CaptureFixture) -> None:
    """Of another network, damaged, or of a training that is over."""
    folder = fastmri_folder / "singlecoil_test"
    line = last_line(BUNDLE, "inference", dataset_dir=folder, capsys=capsys)
    assert re.match(
        r"error: ValueError: CheckpointReader: \./models/model.pt must be a whole checkpoint that fits", line
    )
    assert "Error(s) in loading state_dict for InvertibleRIM" in line and "configuration" in line and len(line) < 700
    options = {**TRAINING, "dataset_dir": fastmri_folder, "resume": True, "capsys": capsys}
    line = last_line(BUNDLE, "train", "small", "quick", **{**options, "epochs": 1})
    assert re.match(r"error: ValueError: CheckpointReader: \./models/resume.pt .* Epoch count \(2\)", line)
    os.truncate("models/resume.pt", 1000)
    line = last_line(BUNDLE, "train", "small", "quick", **options)
    assert re.match(r"error: ValueError: CheckpointReader: \./models/resume.pt must be a whole checkpoint", line)


def test_outputs_are_not_overwritten(here: Path, fastmri_folder: Path, capsys: pytest.CaptureFixture) -> None:
    options = {**TINY, "dataset_dir": fastmri_folder / "singlecoil_test"}
    run(BUNDLE, "inference", "small", **options)
    before = Path("reconstructions/file3000000.h5").stat().st_mtime_ns
    line = last_line(BUNDLE, "inference", "small", capsys=capsys, **options)
    assert re.match(
        r"error: FileExistsError: ReconstructionSaver: reconstructions/file3000000.h5.* overwrite=True", line
    )
    assert Path("reconstructions/file3000000.h5").stat().st_mtime_ns == before
    run(BUNDLE, "inference", "small", overwrite=True, **options)
    assert Path("reconstructions/file3000000.h5").stat().st_mtime_ns > before


def test_command_line_error(tmp_path: Path) -> None:
    """What a user sees of an error in a terminal."""
    process = arguments("-m", "monai.bundle", "run", config_file=config_files(BUNDLE, "train"), dataset_dir="/nowhere")
    done = subprocess.run(process, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: FileNotFoundError: fastMRI folder /nowhere/singlecoil_train does not exist. Give the folder that holds "
        "the .h5 volumes."
    )


# -------------------------------------------------------------------------------------------------------- config files


def strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a config, with the key of its entry."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from strings(entry, name)
    elif isinstance(value, list):
        for entry in value:
            yield from strings(entry, key)
    elif isinstance(value, str):
        yield key, value


@pytest.mark.parametrize("file", [file for file in CONFIGS if file.name != "metadata.json"], ids=lambda file: file.stem)
def test_config_file(file: Path) -> None:
    ours = {name for module in vars(monai_invertible).values() for name in getattr(module, "__all__", ())}
    for key, value in strings(json.loads(file.read_text(encoding="utf-8"))):
        if key == "_target_":  # a bare name of ours depends on what was imported before
            assert value not in ours, f"{file.name}: write the full path of {value}"
            if "." in value:
                module, _, name = value.rpartition(".")
                __import__(module)
                assert hasattr(sys.modules[module], name), value
        for match in re.finditer(r"(@?[\w#]*)#", value):  # MONAI replaces it by "::" wherever it stands
            assert match[0].startswith("@"), f"{file.name}: {value!r} has a # outside an id"
        assert not value.startswith("%"), f"{file.name}: {value!r} would be a macro"


def test_metadata_agree_with_the_package() -> None:
    metadata = json.loads((BUNDLE / "configs/metadata.json").read_text(encoding="utf-8"))
    assert metadata["version"] == monai_invertible.__version__ and metadata["version"] in metadata["changelog"]
    pinned: dict[str, set[str]] = {"monai-invertible": {monai_invertible.__version__}}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([\w.-]+)==([\w.]+)", line):
            pinned.setdefault(match[1], set()).add(match[2])
    named = {
        "monai": metadata["monai_version"],
        "torch": metadata["pytorch_version"],
        "numpy": metadata["numpy_version"],
    }
    for name, version in (named | metadata["required_packages_version"]).items():
        assert version in pinned.get(name, ()), f"metadata.json: {name} {version}, constraints.txt: {pinned.get(name)}"


def test_what_the_model_zoo_asks_for() -> None:
    for name in (
        "LICENSE",
        "docs/README.md",
        "docs/data_license.txt",
        "configs/inference.json",
        "configs/metadata.json",
    ):
        assert (BUNDLE / name).is_file(), name
    assert not list(BUNDLE.rglob("*.py"))  # the code is in the package
    assert (BUNDLE / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_readme_names_every_config_file() -> None:
    text = (BUNDLE / "docs/README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\$CONFIGS/(\w+\.json)", text)) <= {file.name for file in CONFIGS}
    missing = [file.name for file in CONFIGS if f"`{file.name}`" not in text and file.name != "metadata.json"]
    assert not missing
