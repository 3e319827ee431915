"""Streams of a device in their order: who reads what another stream has computed waits for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["StreamOrder"]


class StreamOrder:
    """Hands tensors from the stream that made them to the one that is current.

    Autograd runs each backward node on the stream of its forward. What a walk back has computed on the stream of one
    node may be asked for on that of another.
    """

    def __init__(self) -> None:
        self.last: dict[torch.device, Any] = {}

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """From now on the tensors are used, and more computed, on the current stream of their device."""
        for t in tensors:
            if t.device.type in ("cpu", "meta"):
                continue
            now = torch.get_device_module(t.device).current_stream(t.device)
            last = self.last.get(t.device)
            if last is not None and last != now:
                now.wait_stream(last)
                t.record_stream(now)
        for device in {t.device for t in tensors if t.device.type not in ("cpu", "meta")}:
            self.last[device] = torch.get_device_module(device).current_stream(device)
