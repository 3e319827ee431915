"""There and back again: what the other generator makes of a prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from monai.engines.utils import IterationEvents

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["CycleHandler"]


class CycleHandler:
    """Put "cycled" into the output of an evaluator: G(F(x)), or F(G(y)).

    Args:
        direction: of the evaluation, "forward" or "inverse"; the way back is the other one.
    """

    def __init__(self, direction: str = "forward") -> None:
        self.back = "inverse" if direction == "forward" else "forward"

    def attach(self, engine: Engine) -> None:
        """Register on a ``SupervisedEvaluator`` of a pair of generators."""
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Run the other generator."""
        output = engine.state.output
        with engine.mode(engine.network):
            output["cycled"] = engine.inferer(output["pred"], engine.network, direction=self.back)
