"""Where a training that was interrupted goes on."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["newest_checkpoint"]


def newest_checkpoint(folder: str | os.PathLike, pattern: str = "resume_checkpoint_*.pt") -> str:
    """The file in ``folder`` that matches ``pattern`` and was written last.

    Raises:
        FileNotFoundError: there is none.
    """
    files = sorted(Path(folder).glob(pattern), key=lambda file: file.stat().st_mtime)
    if not files:
        raise FileNotFoundError(
            f"newest_checkpoint: there must be a file {pattern} to resume from, found none in {folder}. Train without "
            "resume first, or set ckpt_dir to the folder of that training."
        )
    return str(files[-1])
