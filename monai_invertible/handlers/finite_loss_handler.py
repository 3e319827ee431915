"""Stop a training whose loss is not a number any more, before anything bad is saved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from monai_invertible.handlers.engine_losses import engine_losses

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["FiniteLossHandler"]


class FiniteLossHandler:
    """Ignite handler that raises when the loss is NaN or infinite, or another output whose name ends with "loss" (the
    discriminators' of a GAN, its single terms); checkpoints that were written stay as they are.

    Put it before the handlers that save. (Ignite's ``TerminateOnNan`` ends such a run as if it had succeeded.)
    """

    def attach(self, engine: Engine) -> None:
        """Register with the engine."""
        from ignite.engine import Events

        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Check the loss of an iteration.

        Raises:
            FloatingPointError: a loss is not finite.
            ValueError: the engine has no loss.
        """
        losses = engine_losses(engine)
        if not losses:
            raise ValueError(
                'FiniteLossHandler: the engine\'s output must have a "loss", got none. Attach it to a trainer.'
            )
        for name, loss in (pair for item in losses for pair in item.items()):
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"FiniteLossHandler: the {name} must be finite, got {loss} in iteration {engine.state.iteration} "
                    f"of epoch {engine.state.epoch}. The last checkpoint is kept; resume from it with a smaller "
                    "learning rate, or look at the data of this batch."
                )
