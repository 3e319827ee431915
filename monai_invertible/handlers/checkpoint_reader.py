"""Load a checkpoint; if that fails, say which file it was and what to do."""

from __future__ import annotations

import os
from typing import Any

from monai.handlers.checkpoint_loader import CheckpointLoader

__all__ = ["CheckpointReader"]


class CheckpointReader(CheckpointLoader):
    """MONAI's ``CheckpointLoader`` (same arguments) with errors that a user can act on.

    What is None in ``load_dict`` is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or was saved from another network or another kind of training.
    """

    def __init__(self, load_path: str, load_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        load_dict = {name: part for name, part in load_dict.items() if part is not None}
        super().__init__(load_path, load_dict, *args, **kwargs)

    def __call__(self, engine: Any) -> None:
        if not os.path.isfile(self.load_path):
            raise FileNotFoundError(
                f"CheckpointReader: {self.load_path} must be a checkpoint, but does not exist. Train first, or give "
                "the path of an existing one."
            )
        try:
            super().__call__(engine)
        except Exception as error:
            first = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
            text = f"{type(error).__name__}: {first[:120].rstrip(' .')}"
            raise ValueError(
                f"CheckpointReader: {self.load_path} must be a whole checkpoint that fits {', '.join(self.load_dict)}, "
                f"got {text}. Give the configuration that it was trained with, or another checkpoint."
            ) from error
