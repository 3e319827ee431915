"""Save what a training resumes from, so that it can be killed at any moment."""

from __future__ import annotations

from typing import Any

from monai.handlers.checkpoint_saver import CheckpointSaver

from monai_invertible.handlers.checkpoint_file import checkpoint_file

__all__ = ["ResumeCheckpointSaver"]


class ResumeCheckpointSaver(CheckpointSaver):
    """MONAI's ``CheckpointSaver`` of every epoch with one file, which is replaced in one step.

    Attach it last, so that an epoch's validation and learning rate are in. Resume with ``CheckpointReader`` and the
    same dictionary.

    Args:
        save_dir: folder of the file.
        save_dict: network, optimizer, scheduler, trainer, ``ScalerState``, ``BestCheckpointSaver``: each with a
            ``state_dict``. What is None is left out.
        filename: the file's name.
        kwargs: other arguments of ``CheckpointSaver``.
    """

    def __init__(self, save_dir: str, save_dict: dict[str, Any], filename: str = "resume.pt", **kwargs: Any) -> None:
        save_dict = {name: part for name, part in save_dict.items() if part is not None}
        super().__init__(save_dir, save_dict, save_interval=1, n_saved=1, **kwargs)
        interval: Any = self._interval_checkpoint
        interval.save_handler = checkpoint_file(save_dir, filename)
