"""The device of the GPU's tests, and a journal of them.

``GPU_TEST_DEVICE=cpu pytest tests/gpu`` rehearses on the processor whatever does not need CUDA itself. Where nothing is
said and there is no GPU, every test is skipped. ``GPU_TEST_JOURNAL`` names a file that gets a line of JSON for each
test as it goes, so that whoever ran the tests knows what came of them even when the last one never ends.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

JOURNAL = os.environ.get("GPU_TEST_JOURNAL")


@pytest.fixture(autouse=True)
def device() -> Iterator[torch.device]:
    """The GPU; the processor in a rehearsal."""
    device = torch.device(os.environ.get("GPU_TEST_DEVICE", "cuda"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a GPU: torch.cuda is not available (GPU_TEST_DEVICE=cpu rehearses on the processor)")
    yield device
    if device.type == "cuda":
        torch.cuda.synchronize()  # an error of this test is not to surface in the next


@pytest.fixture
def cuda(device: torch.device) -> torch.device:
    """The GPU, for what the processor has not: streams, graphs, an allocator of its own."""
    if device.type != "cuda":
        pytest.skip("needs CUDA itself: nothing to rehearse on the processor")
    return device


def note(**line: Any) -> None:
    if JOURNAL:
        with open(JOURNAL, "a") as file:
            file.write(json.dumps(line) + "\n")


def pytest_collection_finish(session: pytest.Session) -> None:
    for item in session.items:
        note(event="collected", test=item.nodeid)


def pytest_runtest_logstart(nodeid: str) -> None:
    note(event="started", test=nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or not report.passed:  # a skip or an error before the test, or one after it
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        note(event=report.outcome, test=report.nodeid, seconds=report.duration, text=text)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what the journal already has: a run that broke off goes on behind the test that broke it."""
    if JOURNAL and os.path.exists(JOURNAL):
        with open(JOURNAL) as file:
            lines = [json.loads(line) for line in file]
        begun = {line["test"] for line in lines if line["event"] != "collected"}
        items[:] = [item for item in items if item.nodeid not in begun]
