"""The benchmarks' shared parts, and one benchmark run as a user runs it."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """From a benchmark's name to its module."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in (set(sys.modules) - before) & {path.stem for path in FOLDER.glob("*.py")}:
        del sys.modules[name]


@pytest.fixture
def common(benchmark):
    return benchmark("common")


def test_table(common):
    assert common.table(["", "a"], [["x", 1], ["y", "2.0"]]).splitlines() == [
        "|  | a |",
        "| --- | ---: |",
        "| x | 1 |",
        "| y | 2.0 |",
    ]


def test_result_says_where_it_comes_from(common, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--quick"])
    common.write(tmp_path / "name.md", "Title", "Text")
    text = (tmp_path / "name.md").read_text()
    assert text.startswith("# Title\n\nText\n")
    assert "`python benchmarks/name.py --quick`" in text
    assert re.search(r"\d{4}-\d\d-\d\d; .+ cores, \d+ thread\(s\); .+ torch \d", text)
    assert capsys.readouterr().out.strip() == text.strip()


def test_memory_against_depth_runs_and_is_flat_when_inverted():
    run = subprocess.run(
        [sys.executable, FOLDER / "memory_against_depth.py", "--quick"],
        env={**os.environ, "PYTHONPATH": str(FOLDER.parent)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in run.stdout.splitlines() if line[:1] == "|"}
    shallow, deep = (float(cell) for cell in rows["inverted"])
    assert shallow == deep
    assert float(rows["stored"][1]) > float(rows["checkpointed"][1]) > deep
    assert (FOLDER / "results" / "quick" / "memory_against_depth.png").stat().st_size > 0


@pytest.mark.parametrize("task", ["BraTS", "iSeg"])
def test_fully_invertible_unet_keeps_its_promise(benchmark, task):
    """At the paper's sizes: a quarter of its own stored step, a third of the U-Net's, and the paper's order."""
    invres = benchmark("invres_memory")
    report = {key: peak.peak for key, peak in invres.simulate(invres.TASKS[task], vae=False, optimizer=None).items()}
    fully = report["Fully", "invert"]
    assert fully < 0.28 * report["Fully", "store"]
    assert fully < 0.36 * report["U-Net", "store"]
    assert fully < report["Partially", "invert"] < report["U-Net", "checkpoint"] < report["U-Net", "store"]


def test_parameters_are_matched(benchmark):
    invres = benchmark("invres_memory")
    estimate, task = invres.estimate_training_step, invres.TASKS["iSeg"]._replace(batch=1, edge=32)
    reports = {
        (name, "store"): estimate(lambda name=name: task.network(name, "store"), task.shape())
        for name in invres.NETWORKS
    }
    invres.check_parameters(reports)
    reports["U-Net", "store"] = dataclasses.replace(reports["U-Net", "store"], parameters=1)
    with pytest.raises(ValueError, match="parameters must agree within 10 %"):
        invres.check_parameters(reports)


def test_fully_invertible_unet_is_flat_in_couplings(benchmark):
    invres = benchmark("invres_memory")
    task = invres.TASKS["BraTS"]._replace(edge=32)
    peaks = invres.coupling_peaks(task, (1, 4))
    assert peaks["Fully", "invert"][1] == pytest.approx(peaks["Fully", "invert"][0], rel=0.02)
    assert peaks["Fully", "store"][1] > 2 * peaks["Fully", "store"][0]


def test_contenders_take_turns(common):
    order = []
    seconds = common.take_turns({name: lambda name=name: order.append(name) for name in "abc"}, 2)
    assert "".join(order) == "abc" + "bca" + "cab"
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 2, "b": 2, "c": 2}
    assert common.quartiles([1.0, 2.0, 3.0]) == (1.5, 2.0, 2.5)


def test_memory_tables_in_the_bundles_are_the_results():
    _, *sections = (FOLDER / "results" / "bundle_memory.md").read_text().split("\n## ")
    assert len(sections) >= 3
    for section in sections:
        name, _, text = section.partition("\n")
        readme = (FOLDER.parent / "bundles" / name / "docs" / "README.md").read_text()
        rows = [line for line in text.splitlines() if " GB |" in line]
        assert rows and not [row for row in rows if row not in readme], f"{name}: run bundle_memory.py, copy its table"


def test_fully_invertible_unet_against_monai(benchmark):
    """Parameters are matched, and of the networks that work at full resolution ours needs least."""
    unets = benchmark("monai_unets")
    assert unets.count_parameters().keys() == unets.NETWORKS.keys()
    names = ["UNet, first stride 1", "- CheckpointUNet, first stride 1", "SegResNet", "DynUNet"]
    peak = {name: unets.simulate(name, 64).peak for name in [*names, "Fully, first level 20 wide"]}
    fully = peak.pop("Fully, first level 20 wide")
    assert fully < 0.8 * min(peak.values())


def test_unmatched_parameters_are_refused(benchmark, monkeypatch):
    unets = benchmark("monai_unets")
    monkeypatch.setitem(unets.NETWORKS, "DynUNet", {**unets.NETWORKS["DynUNet"], "filters": [16, 32, 64, 128, 256]})
    with pytest.raises(ValueError, match="parameters must agree within 10 %"):
        unets.count_parameters()


def test_hybrid_finds_back_where_the_layerwise_network_does_not(benchmark):
    snr = benchmark("inversion_snr")
    setting = snr.Setting(quick=True)
    least = {kind: snr.measure(setting, kind, 9, 0.2, "float32").worst.decibels for kind in snr.BRANCHES}
    assert least["layer-wise"] < 40 < 80 < least["hybrid"]
