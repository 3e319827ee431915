"""One file of a fixed name for all checkpoints of a kind, replaced in one step.

Ignite's ``DiskSaver`` in MONAI's ``CheckpointSaver`` removes the old file and then writes the new one in place: a
process that is killed in between leaves no checkpoint, or half of one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from monai_invertible.data.atomic_path import atomic_path

__all__ = ["checkpoint_file"]


def checkpoint_file(folder: str | os.PathLike, name: str) -> Callable[..., None]:
    """A ``save_handler`` for Ignite's ``Checkpoint``: it saves to ``folder/name``, whatever the file name it is given.

    At any moment the file is the old checkpoint or the new one.
    """

    def save(checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        with atomic_path(Path(folder) / name) as path:
            torch.save(checkpoint, path)

    return save
