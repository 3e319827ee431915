"""What is there is kept, unless the user says otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["refuse_existing"]


def refuse_existing(saver: Any, files: Iterable[Path]) -> None:
    """Raise FileExistsError if one of the files that a saver is about to write exists and it may not ``overwrite``."""
    existing = [str(file) for file in files if file.exists()]
    if existing and not saver.overwrite:
        raise FileExistsError(
            f"{type(saver).__name__}: {', '.join(existing)} must not exist. Choose another output_dir, or set "
            "overwrite=True."
        )
