"""The process's own account: it must see a large array, and forget it after a reset."""

from __future__ import annotations

import sys

import pytest
import torch

from monai_invertible.memory import process_peak_bytes, reset_process_peak

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SIZE = 200 * 2**20


def test_peak_sees_a_large_tensor_and_can_start_again():
    if not reset_process_peak():
        pytest.skip("the system does not let a process reset its peak")
    start = process_peak_bytes()
    x = torch.ones(SIZE // 4)
    assert process_peak_bytes() - start > 0.9 * SIZE
    del x
    assert process_peak_bytes() - start > 0.9 * SIZE  # still the peak
    assert reset_process_peak()
    assert process_peak_bytes() - start < 0.5 * SIZE
