"""How exactly a network's chains find their way back, in the log of a training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from torch import nn

from monai_invertible.autograd import read_drift

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["DriftHandler"]


class DriftHandler:
    """Reads the drift of every chain after every iteration, and logs the largest of an epoch.

    Drift is the relative error of a chain's recomputed input, measured now and then; only the end of an epoch waits for
    what a GPU has not finished. ``engine.state.drift`` is the largest since the epoch
    began, 0 for networks that store or checkpoint. The limits at which a chain warns and raises are those of
    :func:`~monai_invertible.autograd.set_drift_guard`; its messages name the chains.

    Args:
        network: has invertible chains, or none.
        name: of the logger; None for the engine's own.
    """

    def __init__(self, network: nn.Module, name: str | None = None) -> None:
        self.network = network
        self.logger = logging.getLogger(name) if name else None
        self.worst = ""

    def attach(self, engine: Engine) -> None:
        """Register with the engine."""
        from ignite.engine import Events

        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.measure)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.log)

    def start(self, engine: Engine) -> None:
        """Forget the epoch before."""
        state: Any = engine.state
        state.drift, self.worst = 0.0, ""

    def measure(self, engine: Engine, wait: bool = False) -> None:
        """Remember the largest."""
        state: Any = engine.state
        for name, error in read_drift(self.network, wait=wait).items():
            if error > state.drift:
                state.drift, self.worst = error, name

    def log(self, engine: Engine) -> None:
        """One line, if there is something to tell."""
        self.measure(engine, wait=True)
        state: Any = engine.state
        if state.drift:
            (self.logger or engine.logger).info(
                f"Epoch {state.epoch} drift: the input of chain '{self.worst}' was recomputed with a relative error of "
                f"{state.drift:.1e}, the largest of all chains"
            )
