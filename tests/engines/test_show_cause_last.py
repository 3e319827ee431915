"""The cause of an error, once more, after MONAI's traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from monai.data import DataLoader, Dataset

from monai_invertible.engines import show_cause_last


@pytest.fixture(autouse=True)
def hook() -> Iterator[None]:
    before = sys.excepthook
    yield
    sys.excepthook = before


def shown(error: BaseException, capsys: pytest.CaptureFixture) -> list[str]:
    sys.excepthook(type(error), error, error.__traceback__)
    return capsys.readouterr().err.splitlines()


def test_the_last_line_is_the_cause(capsys: pytest.CaptureFixture) -> None:
    try:
        try:
            try:
                raise KeyError("deep")
            except KeyError as error:
                raise ValueError("the mask must fit") from error
        except ValueError as error:
            raise RuntimeError("Failed to evaluate ConfigExpression: x") from error
    except RuntimeError as error:
        failure = error
    show_cause_last()
    show_cause_last()
    lines = shown(failure, capsys)
    assert lines[-1] == "error: ValueError: the mask must fit"
    assert sum(line.startswith("error:") for line in lines) == 1 and lines[0].startswith("Traceback")


@pytest.mark.parametrize("error", [ValueError("plain"), SystemExit(1), RuntimeError("Failed to evaluate")])
def test_others_are_left_alone(error: BaseException, capsys: pytest.CaptureFixture) -> None:
    show_cause_last()
    assert shown(error, capsys)[-1].startswith(type(error).__name__)


def read(index: int) -> int:
    raise ValueError(f"file{index}.h5: k-space must be finite")


def test_cause_in_another_process(capsys: pytest.CaptureFixture) -> None:
    """PyTorch sends an error of a ``DataLoader``'s process as text."""
    loader = DataLoader(Dataset([3], transform=read), num_workers=1)
    try:
        try:
            next(iter(loader))
        except RuntimeError as error:
            raise RuntimeError("Failed to evaluate ConfigExpression: x") from error
    except RuntimeError as error:
        failure = error
    show_cause_last()
    assert shown(failure, capsys)[-1] == "error: ValueError: file3.h5: k-space must be finite"


def test_ctrl_c_is_one_line(capsys: pytest.CaptureFixture) -> None:
    show_cause_last()
    assert shown(KeyboardInterrupt(), capsys)[1:] == [
        "interrupted: what was written stays; a training goes on with --resume True"
    ]
