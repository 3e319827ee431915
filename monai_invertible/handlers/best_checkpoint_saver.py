"""Save the network that scores best, also across an interruption of the training."""

from __future__ import annotations

from typing import Any

from monai.handlers.checkpoint_saver import CheckpointSaver

__all__ = ["BestCheckpointSaver"]


class BestCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver`` for the key metric, which remembers the best score in a checkpoint.

    Put it in the ``save_dict`` of what a training resumes from; otherwise the first validation after resuming counts as
    the best and replaces a better model.

    Args:
        save_dir: folder of the file.
        save_dict: what is saved; a single network is saved as its plain ``state_dict``.
        key_metric_filename: the file's name.
        kwargs: other arguments of ``CheckpointSaver``.
    """

    def __init__(
        self, save_dir: str, save_dict: dict[str, Any], key_metric_filename: str = "model.pt", **kwargs: Any
    ) -> None:
        super().__init__(save_dir, save_dict, save_key_metric=True, key_metric_filename=key_metric_filename, **kwargs)
        self._best: Any = self._key_metric_checkpoint

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"_saved": [(float(score), name) for score, name in self._best.state_dict()["_saved"]]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the best score of an earlier run."""
        self._best.load_state_dict(state_dict)
