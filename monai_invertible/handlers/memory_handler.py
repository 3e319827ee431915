"""Report the memory of every epoch of a MONAI or Ignite engine.

Three accounts, because no single one answers every question: the process as the operating system sees it, the CUDA
allocator if there is one, and, for one iteration, the bytes of living tensors (``LiveBytes``), which is the figure
that an invertible network changes.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from monai_invertible.memory import LiveBytes, process_peak_bytes, reset_process_peak

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["MemoryHandler"]


class MemoryHandler:
    """Ignite handler that logs the peak memory of each epoch and keeps it in ``engine.state.memory``, in bytes:

    - ``"process_peak"``: largest resident size of the process; of the epoch on Linux, elsewhere since the start of the
      process; absent on Windows.
    - ``"cuda_peak"``: largest allocation of the CUDA allocator in the epoch, if the engine runs on such a device.
    - ``"live_peak"``: largest sum of the living tensors that one iteration created, without parameters and data; kept
      from the iteration that was counted.

    Args:
        live_iteration: number of the iteration, counted from 1 over the whole run, whose living tensors are counted;
            it is slower than the others. None counts none.
        name: name of the logger; None for the engine's own.
    """

    def __init__(self, live_iteration: int | None = 1, name: str | None = None) -> None:
        if live_iteration is not None and live_iteration < 1:
            raise ValueError(
                f"MemoryHandler: live_iteration counts from 1, got {live_iteration}. Use None to count no iteration."
            )
        self.live_iteration = live_iteration
        self.logger = logging.getLogger(name) if name else None
        self._live_peak: int | None = None

    def attach(self, engine: Engine) -> None:
        """Register with the engine."""
        from ignite.engine import Events

        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
        if self.live_iteration is not None:
            engine.add_event_handler(Events.ITERATION_STARTED(once=self.live_iteration), self.count_iteration)

    def epoch_started(self, engine: Engine) -> None:
        """Start the peaks again."""
        reset_process_peak()
        if _on_cuda(engine):
            torch.cuda.reset_peak_memory_stats(_device(engine))

    def count_iteration(self, engine: Engine) -> None:
        """Let the coming iteration, and it alone, run under the counter, which an exception leaves as well."""
        step = engine._process_function

        def counted(engine: Engine, batch: Any) -> Any:
            engine._process_function = step
            with LiveBytes() as live:
                output = step(engine, batch)
            self._live_peak = live.peak
            return output

        engine._process_function = counted

    def epoch_completed(self, engine: Engine) -> None:
        """Store and log the peaks."""
        cuda = torch.cuda.max_memory_allocated(_device(engine)) if _on_cuda(engine) else None
        peaks = {"process_peak": process_peak_bytes(), "cuda_peak": cuda, "live_peak": self._live_peak}
        memory = {name: size for name, size in peaks.items() if size is not None}
        setattr(engine.state, "memory", memory)  # noqa: B010 - Ignite's State takes any attribute, its type does not say
        text = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in memory.items())
        (self.logger or engine.logger).info(f"Epoch {engine.state.epoch} memory: {text}")


def _device(engine: Engine) -> torch.device:
    return getattr(engine.state, "device", None) or torch.device("cpu")  # MONAI's engines have one, Ignite's have not


def _on_cuda(engine: Engine) -> bool:
    return _device(engine).type == "cuda" and torch.cuda.is_available()
