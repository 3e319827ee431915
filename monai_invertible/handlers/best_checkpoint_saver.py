"""Save the network that scores best, also across an interruption of the training."""

from __future__ import annotations

import math
from typing import Any

from monai.handlers.checkpoint_saver import CheckpointSaver

from monai_invertible.handlers.checkpoint_file import checkpoint_file

__all__ = ["BestCheckpointSaver"]


class BestCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver`` for the key metric, which remembers the best score in a checkpoint, and replaces its
    file in one step.

    Put it in the ``save_dict`` of what a training resumes from; otherwise the first validation after resuming counts as
    the best and replaces a better model.

    Args:
        save_dir: folder of the file.
        save_dict: what is saved; a single network is saved as its plain ``state_dict``.
        key_metric_filename: the file's name.
        kwargs: other arguments of ``CheckpointSaver``.

    Raises:
        FloatingPointError: the score is not a number; the training stops, and no checkpoint is replaced.
    """

    def __init__(
        self, save_dir: str, save_dict: dict[str, Any], key_metric_filename: str = "model.pt", **kwargs: Any
    ) -> None:
        super().__init__(save_dir, save_dict, save_key_metric=True, key_metric_filename=key_metric_filename, **kwargs)
        best: Any = self._key_metric_checkpoint
        best.save_handler = checkpoint_file(save_dir, key_metric_filename)
        self._best = best

    def metrics_completed(self, engine: Any) -> None:
        """Save if the score is the best so far."""
        score = engine.state.metrics[engine.state.key_metric_name]
        if math.isnan(score) or score == -math.inf:
            raise FloatingPointError(
                f"BestCheckpointSaver: {engine.state.key_metric_name} must be a number, got {score}: the network has "
                "diverged. The last checkpoints are kept; resume from them with a smaller learning rate."
            )
        super().metrics_completed(engine)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"_saved": [(float(score), name) for score, name in self._best.state_dict()["_saved"]]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score of an earlier run."""
        self._best.load_state_dict(state_dict)
