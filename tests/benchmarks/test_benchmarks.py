"""The benchmarks' shared parts, and one benchmark run as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import common

    yield common
    sys.modules.pop("common")


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
