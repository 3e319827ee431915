"""The folder of a sample set: marked by a note as ours, so that nobody's own data are ever overwritten."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["prepare_sample_folder"]

_NOTE_NAME = "SAMPLE_DATA.md"


def prepare_sample_folder(directory: str | os.PathLike, note: str, patterns: Sequence[str], overwrite: bool) -> Path:
    """Make an empty folder with the note that says what its data are.

    Args:
        directory: a new or empty directory, or one that holds a note with the same first line.
        note: written to ``SAMPLE_DATA.md``; its first line names the kind of the sample set.
        patterns: the files of such a set, relative to the directory; these alone are removed, and the sub-folders that
            are empty then.
        overwrite: replace an older set of the same kind.

    Raises:
        FileExistsError: if the directory holds anything else, or an older set and ``overwrite`` is False.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        _check(directory, note, overwrite)
        for path in [path for pattern in patterns for path in directory.glob(pattern)]:
            path.unlink()
            for folder in path.relative_to(directory).parents[:-1]:
                if not any((directory / folder).iterdir()):
                    (directory / folder).rmdir()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / _NOTE_NAME).write_text(note, encoding="utf-8")
    return directory


def _check(directory: Path, note: str, overwrite: bool) -> None:
    path = directory / _NOTE_NAME
    kind = path.read_text(encoding="utf-8").partition("\n")[0] if path.is_file() else None
    if kind is None:
        raise FileExistsError(
            f"sample data: {directory} is not empty and was not written by this command, so it is never overwritten. "
            "Choose another directory."
        )
    if kind != note.partition("\n")[0]:
        raise FileExistsError(
            f'sample data: {directory} holds another sample set ("{kind.lstrip("# ")}"), which is never overwritten. '
            "Choose another directory."
        )
    if not overwrite:
        raise FileExistsError(
            f"sample data: {directory} holds a sample set already. Use it, choose another directory, or give "
            "--overwrite (overwrite=True)."
        )
