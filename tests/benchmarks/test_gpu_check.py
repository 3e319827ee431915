"""``gpu_check.py`` without a GPU: it says so and touches nothing; a rehearsal on the processor calls itself one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
FILES = ("gpu_check.json", "gpu_check.md")


def run(*arguments, **variables):
    """The script in a process that sees no GPU."""
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent), "CUDA_VISIBLE_DEVICES": "", **variables}
    command = [sys.executable, "-W", "ignore", str(FOLDER / "gpu_check.py"), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_without_a_gpu_it_says_so_and_leaves_results_alone(tmp_path):
    for name in FILES:
        (tmp_path / name).write_text("a measurement")
    found = run("--output", tmp_path)
    assert found.returncode == 2
    assert found.stderr.count("\n") == 1 and "torch.cuda is not available" in found.stderr and not found.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(FILES)
    assert all((tmp_path / name).read_text() == "a measurement" for name in FILES)


def test_rehearsal_writes_both_files_and_calls_itself_one(tmp_path):
    found = run("--device", "cpu", "--quick", "--output", tmp_path, "--checks", "tests", "engine, float32")
    report = json.loads((tmp_path / "gpu_check.json").read_text())
    assert found.returncode == 0, report["checks"]
    table = (tmp_path / "gpu_check.md").read_text()
    for text in (report["kind"], table.splitlines()[0]):
        assert "Rehearsal on the processor: nothing here was measured on a GPU" in text
    assert report["card"] is None and report["torch"] == torch.__version__
    assert abs(datetime.fromisoformat(report["date"]).timestamp() - time.time()) < 3600
    assert "--device cpu --quick" in report["command"] and report["command"] in table
    tests, engine = report["checks"]
    assert tests["status"] == engine["status"] == "passed"
    assert tests["data"]["counts"]["passed"] > 0 and tests["data"]["counts"]["skipped"] > 0
    contenders = engine["data"]["contenders"]
    assert {"stored", "checkpointed", "inverted"} <= contenders.keys()
    assert engine["data"]["clock"] == "time.perf_counter" and engine["data"]["memory"] == "LiveBytes"
    for name, own in contenders.items():
        assert own["gradient error"] < 1e-4 and len(own["seconds"]) == engine["data"]["turns"] >= 3
        assert own["depth 3"]["peak"] >= own["depth 3"]["kept"] > 0
        assert f"| {name} | {1000 * own['median']:.1f} |" in table
    assert contenders["inverted"]["depth 3"]["kept"] == contenders["inverted"]["depth 1"]["kept"]


def test_what_time_does_not_suffice_for_is_listed_as_not_run(tmp_path):
    found = run("--device", "cpu", "--quick", "--output", tmp_path, "--minutes", 0)
    assert found.returncode == 3
    checks = json.loads((tmp_path / "gpu_check.json").read_text())["checks"]
    assert len(checks) > 2 and {(c["status"], c["reason"]) for c in checks} == {("not run", "not reached in time")}
    assert all(f"| {c['name']} | not run |" in (tmp_path / "gpu_check.md").read_text() for c in checks)


def test_rehearsal_does_not_take_the_place_of_a_measurement():
    found = run("--device", "cpu", "--output", FOLDER / "results")
    assert found.returncode == 2 and "must not take the place of a measurement" in found.stderr


def test_numbers_that_are_not_finite_are_written(checks):
    import gpu_check

    found = gpu_check.plain({"a": (1.5, float("nan")), "b": {1: float("inf")}, "c": None})
    assert json.loads(json.dumps(found, allow_nan=False)) == {"a": [1.5, "nan"], "b": {"1": "inf"}, "c": None}


@pytest.fixture
def checks(monkeypatch):
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu_checks

    yield gpu_checks
    for name in (set(sys.modules) - before) & {path.stem for path in FOLDER.glob("*.py")}:
        del sys.modules[name]


SUITE = """
import os, time, pytest

def test_right(): pass
def test_wrong(): assert 1 == 2, "one is not two"
def test_crash(): os._exit(11)
def test_absent(): pytest.skip("no such thing here")
def test_hangs(): time.sleep(60)
def test_last(): pass
"""


def test_tests_that_crash_or_hang_do_not_keep_the_others_from_running(checks, tmp_path, monkeypatch):
    folder = tmp_path / "tests" / "gpu"
    folder.mkdir(parents=True)
    (folder / "conftest.py").write_text((FOLDER.parent / "tests" / "gpu" / "conftest.py").read_text())
    (folder / "test_suite.py").write_text(SUITE)
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    monkeypatch.setattr(checks, "SILENCE", 6.0)
    setting = checks.Setting(torch.device("cpu"), quick=False, deadline=time.monotonic() + 100)
    result = checks.run_tests(setting)
    outcomes = {name.split("::test_")[1]: t["outcome"] for name, t in result.data["tests"].items()}
    assert outcomes == {
        "right": "passed", "wrong": "failed", "crash": "broke off", "absent": "skipped", "hangs": "broke off",
        "last": "passed",
    }  # fmt: skip
    assert result.status == "failed" and result.reason == "1 failed, 2 broke off"
    assert "one is not two" in result.text and "- 1: no such thing here" in result.text
    stopped = checks.run_tests(setting._replace(deadline=time.monotonic()))
    assert stopped.status == "not run"
