"""One bar for the whole run: how far, how long still, the loss, the memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from monai_invertible.handlers.engine_losses import engine_losses
from monai_invertible.memory import process_peak_bytes

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["ProgressHandler"]


class ProgressHandler:
    """Ignite handler that shows a ``tqdm`` bar over all iterations, with the loss, the peak memory and the time left.

    The memory is the CUDA allocator's peak on such a device, otherwise the peak resident size of the process.

    Args:
        name: what the bar is called.
        key_metric: a metric of the validation that is shown once there is one; give its engine as ``evaluator``.
        evaluator: the validation's engine.
    """

    def __init__(self, name: str = "train", key_metric: str | None = None, evaluator: Engine | None = None) -> None:
        self.name = name
        self.key_metric = key_metric
        self.evaluator = evaluator
        self._bar: Any = None

    def attach(self, engine: Engine) -> None:
        """Register with the engine."""
        from ignite.engine import Events

        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.COMPLETED, self.close)
        engine.add_event_handler(Events.TERMINATE, self.close)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.close_and_raise)

    def start(self, engine: Engine) -> None:
        """Open the bar."""
        from tqdm.auto import tqdm

        total = (engine.state.max_epochs or 1) * (engine.state.epoch_length or 0)
        self._bar = tqdm(total=total or None, desc=self.name, mininterval=1.0)

    def update(self, engine: Engine) -> None:
        """Show the state after an iteration."""
        shown = {
            "loss": next((f"{item['loss']:.4g}" for item in engine_losses(engine)), None),
            "memory": _memory(engine),
        }
        if self.key_metric and self.evaluator is not None and self.key_metric in self.evaluator.state.metrics:
            shown[self.key_metric] = f"{float(self.evaluator.state.metrics[self.key_metric]):.4g}"
        self._bar.set_postfix({k: v for k, v in shown.items() if v is not None}, refresh=False)
        if self._bar.n == 0:  # a resumed run starts where it was
            self._bar.initial = self._bar.n = engine.state.iteration - 1
        self._bar.update()

    def close(self, engine: Engine | None = None) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def close_and_raise(self, engine: Engine, error: BaseException) -> None:
        """Close the bar and let the error go on."""
        self.close()
        raise error


def _memory(engine: Engine) -> str | None:
    device = getattr(engine.state, "device", None)
    on_cuda = isinstance(device, torch.device) and device.type == "cuda"
    peak = torch.cuda.max_memory_allocated(device) if on_cuda else process_peak_bytes()
    return None if peak is None else f"{peak / 2**30:.2f} GiB"
