"""A training of the fastMRI i-RIM bundle that is interrupted goes on where it was; nothing good is lost or replaced."""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bundles.fastmri import BUNDLE, ITERATIONS, TINY, TRAINING
from tests.bundles.helper import (
    arguments,
    command,
    config_files,
    environment,
    foreign_directory,
    killed_and_resumed,
    last_line,
    run,
    workflow,
)


def resume(folder: Path, **override: Any) -> Any:
    return run(
        BUNDLE, "train", "small", "quick", dataset_dir=folder, resume=True, **{**TRAINING, "epochs": 4, **override}
    )


def test_resume_goes_on_where_it_was(fastmri_here: Path, fastmri_folder: Path) -> None:
    flow = resume(fastmri_folder)
    assert flow.trainer.state.epoch == 4 and flow.trainer.state.iteration == 4 * ITERATIONS
    assert torch.load("models/resume.pt", weights_only=True)["trainer"]["iteration"] == 4 * ITERATIONS
    assert sorted(os.listdir("models")) == ["model.pt", "resume.pt"]


def test_resume_remembers_the_best_score(fastmri_here: Path, fastmri_folder: Path) -> None:
    """A worse network does not replace model.pt, a better one does."""
    best, state = Path("models/model.pt"), torch.load("models/resume.pt", weights_only=True)
    before = best.stat()
    for score, replaced in ((99.0, False), (-99.0, True)):
        state["best"]["_saved"] = [(score, "model.pt")]
        torch.save(state, "models/resume.pt")
        resume(fastmri_folder, epochs=3)
        assert (best.stat().st_mtime_ns > before.st_mtime_ns) is replaced


def test_diverging_training_keeps_the_last_checkpoint(
    fastmri_here: Path, fastmri_folder: Path, capsys: pytest.CaptureFixture
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


def test_killed_and_resumed_as_if_never_interrupted(tmp_path: Path, fastmri_folder: Path) -> None:
    """The best weights are the same, too."""
    options = {**TRAINING, "dataset_dir": fastmri_folder, "epochs": 3, "roi_size": [24, 24]}
    first, *_ = killed_and_resumed(tmp_path, BUNDLE, "train", "small", "quick", rel=1e-6, **options)
    assert first["trainer"]["iteration"] == ITERATIONS
    one, other = (torch.load(tmp_path / place / "model.pt", weights_only=True) for place in ("models", "whole"))
    torch.testing.assert_close(one, other)


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
    assert process.returncode != 0 and "--resume True" in output.strip().splitlines()[-1]
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
    options = {**TRAINING, "dataset_dir": str(fastmri_folder), "batch_size": 1, "seed": 3, "lr_scheduler__t_total": 2}
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
