"""Run a bundle as MONAI does, in this process or in another, from a directory that is not the bundle's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism

ROOT = Path(__file__).parents[2]
BUNDLES = sorted(folder for folder in (ROOT / "bundles").iterdir() if folder.is_dir())


# A program that runs a bundle and kills itself while the second resume.pt is being written.
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


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle", "run")


def read_config(bundle: Path, name: str) -> dict[str, Any]:
    """A config file as it is written."""
    return json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="utf-8"))


def config_names(bundle: Path) -> list[str]:
    """All config files but the metadata."""
    return sorted(path.stem for path in (bundle / "configs").glob("*.json") if path.stem != "metadata")


def model_names(bundle: Path) -> list[str]:
    """The override files that replace or change the network, and no part of the training: inference takes them too."""
    inference = read_config(bundle, "inference")

    def is_model(name: str) -> bool:
        keys = read_config(bundle, name)
        changed = {key.partition("#")[0] for key in keys if "#" in key}
        return bool({"network_def"} & {*keys, *changed}) and changed <= inference.keys()

    return [name for name in config_names(bundle) if name not in ("train", "inference") and is_model(name)]


@contextmanager
def foreign_directory(folder: Path) -> Iterator[Path]:
    """Work in ``folder``, and leave nothing behind in this process: directory, search path, seeds, error hook."""
    before, path, hook = Path.cwd(), sys.path[:], sys.excepthook
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)
        sys.path[:] = path
        sys.excepthook = hook
        set_determinism(None)


def config_files(bundle: Path, *names: str) -> list[str]:
    return [str(bundle / "configs" / f"{name}.json") for name in names]


def workflow(bundle: Path, *names: str, **override: Any) -> ConfigWorkflow:
    """A workflow of the named config files, initialized; ``override`` has "__" for "#"."""
    pairs = {
        key.replace("__", "#"): str(value) if isinstance(value, Path) else value for key, value in override.items()
    }
    kind = "infer" if names[0] == "inference" else "train"
    flow = ConfigWorkflow(config_files(bundle, *names), workflow_type=kind, logging_file=False, **pairs)
    flow.initialize()
    return flow


def run(bundle: Path, *names: str, **override: Any) -> ConfigWorkflow:
    """The same, run to its end."""
    flow = workflow(bundle, *names, **override)
    flow.run()
    flow.finalize()
    return flow


def last_line(bundle: Path, *names: str, capsys: pytest.CaptureFixture, **override: Any) -> str:
    """Run what must fail; the last line that a user sees of it, on the error stream of ``python -m monai.bundle``."""
    with pytest.raises(RuntimeError, match="Failed to") as caught:
        run(bundle, *names, **override)
    capsys.readouterr()
    sys.excepthook(caught.type, caught.value, caught.tb)
    return capsys.readouterr().err.strip().splitlines()[-1]


def environment() -> dict[str, str]:
    """That of a subprocess: it finds this package, not this directory, and leaves a processor to the others."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def arguments(*verb: str, **options: Any) -> list[str]:
    """``python -m monai.bundle VERB --option value ...``, "__" in an option standing for "#"."""
    pairs = [text for key, value in options.items() for text in (f"--{key.replace('__', '#')}", str(value))]
    return [sys.executable, *verb, *pairs]


def command(*verb: str, cwd: Path, **options: Any) -> str:
    """Run it to its end and return all of its output."""
    done = subprocess.run(
        arguments(*verb, **options),
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def killed_and_resumed(
    folder: Path, bundle: Path, *names: str, rel: float = 1e-5, **options: Any
) -> tuple[dict[str, Any], ...]:
    """SIGKILL in the middle of the second checkpoint: the first is whole. Resumed from it, training repeats itself.

    Returns what ``resume.pt`` holds after the kill, after the resumed training, and after an uninterrupted one.
    """

    def checkpoint(place: str) -> dict[str, Any]:
        return torch.load(folder / place / "resume.pt", weights_only=True)

    process = arguments("-c", KILLED, config_file=config_files(bundle, *names), **options)
    done = subprocess.run(process, cwd=folder, env=environment(), capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    first = checkpoint("models")
    with foreign_directory(folder):
        resumed = run(bundle, *names, resume=True, **options)
        whole = run(bundle, *names, ckpt_dir=folder / "whole", **options)
    assert resumed.evaluator.state.metrics == pytest.approx(whole.evaluator.state.metrics, rel=rel)
    one, other = checkpoint("models"), checkpoint("whole")
    torch.testing.assert_close(one["network"], other["network"])
    return first, one, other
