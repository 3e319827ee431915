"""The state of mixed precision in a checkpoint.

MONAI's trainers make their gradient scaler when they begin to run: it cannot be named among what is saved before. A
training that is resumed without its state begins with another scale, and leaves other steps out.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ScalerState"]


class ScalerState:
    """The ``scaler`` that a trainer has at the moment, to be saved and loaded; nothing without mixed precision.

    Args:
        trainer: has a ``scaler``, which may be None.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """The scaler's state; empty if there is none."""
        scaler = self.trainer.scaler
        return {} if scaler is None else scaler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the scale of an earlier run, if it had one and this one does."""
        if state_dict and self.trainer.scaler is not None:
            self.trainer.scaler.load_state_dict(state_dict)
