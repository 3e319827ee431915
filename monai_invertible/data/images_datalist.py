"""Folders of pictures as MONAI data lists, among them those of pix2pix and CycleGAN for image-to-image translation.

- side by side (pix2pix): ``train/1.jpg``, ``val/1.jpg``; the left half belongs to domain X, the right half to Y;
- separate (CycleGAN): ``trainA/1_A.jpg`` is of X, ``trainB/1_B.jpg`` of Y.

Lists are made from names only: no picture is read. Give them to ``monai.data.Dataset`` with ``LoadPicturesd``.

Sources: Isola et al. 2017, arXiv 1611.07004; Zhu et al. 2017, arXiv 1703.10593.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from monai_invertible.data.split_by_subject import natural_order

__all__ = ["paired_images_datalist", "pictures_datalist", "unpaired_images_datalist"]

_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_LETTERS = {"x": "A", "y": "B"}


def paired_images_datalist(directory: str | os.PathLike, section: str = "train") -> list[dict[str, Any]]:
    """List the pairs of a section, sorted by name ("10" after "9").

    Args:
        directory: the folder of the data set.
        section: "train", "val", "test": the folder of pictures side by side, or, if there is none, the two folders
            ``sectionA`` and ``sectionB``, whose files have the same names (up to ``_A``, ``_B`` and the suffix).

    Returns:
        one dictionary a pair: ``x`` and ``y`` (paths), ``side_by_side`` (whether they are the halves of one file) and
        ``name``. All values can be written as JSON.

    Raises:
        FileNotFoundError: if there is no such folder, or no picture in it.
        ValueError: if the two folders do not have the same names.
    """
    root = Path(directory)
    if (root / section).is_dir():
        return [_item("xy", path, True) for path in _pictures(root / section)]
    folders = {key: root / f"{section}{letter}" for key, letter in _LETTERS.items()}
    if not all(folder.is_dir() for folder in folders.values()):
        raise _missing("paired_images_datalist", root, section)
    x, y = ({_name(path): path for path in _pictures(folder)} for folder in folders.values())
    if x.keys() != y.keys():
        alone = sorted(x.keys() ^ y.keys(), key=natural_order)
        raise ValueError(
            f"paired_images_datalist: {folders['x']} and {folders['y']} must have pictures of the same names, got "
            f"{len(x)} and {len(y)}, of which {', '.join(alone[:3])}{', ...' if len(alone) > 3 else ''} in one only. "
            "Complete them, or use unpaired_images_datalist."
        )
    return [{"x": str(path), "y": str(y[name]), "side_by_side": False, "name": name} for name, path in x.items()]


def unpaired_images_datalist(
    directory: str | os.PathLike, section: str | None = "train", domain: str = "x"
) -> list[dict[str, Any]]:
    """List the pictures of one domain, sorted by name.

    Args:
        directory: the folder of the data set.
        section: "train", "val", "test": the folder ``sectionA`` or ``sectionB``, or, if there is none, the halves of
            the pictures side by side. None or "": ``directory`` holds the pictures themselves.
        domain: "x" or "y".

    Returns:
        one dictionary a picture: its path under the name of the domain, ``side_by_side`` and ``name``. All values can
        be written as JSON.

    Raises:
        FileNotFoundError: if there is no such folder, or no picture in it. ValueError: another domain.
    """
    if domain not in _LETTERS:
        raise ValueError(f'unpaired_images_datalist: domain must be "x" or "y", got {domain!r}. Choose one.')
    root = Path(directory)
    separate = root if not section else root / f"{section}{_LETTERS[domain]}"
    if separate.is_dir():
        return [_item(domain, path, False) for path in _pictures(separate)]
    if not section or not (root / section).is_dir():
        raise _missing("unpaired_images_datalist", root, section)
    return [_item(domain, path, True) for path in _pictures(root / section)]


def pictures_datalist(directory: str | os.PathLike) -> list[dict[str, Any]]:
    """List the pictures of a folder, sorted by name: ``image`` (path) and ``name`` (of the file).

    Raises:
        FileNotFoundError: if there is no such folder, or no picture in it.
    """
    root = Path(directory)
    if not root.is_dir():
        raise _missing("pictures_datalist", root, None)
    return [{"image": str(path), "name": path.name} for path in _pictures(root, lambda path: path.name)]


def _item(keys: str, path: Path, side_by_side: bool) -> dict[str, Any]:
    return {**dict.fromkeys(keys, str(path)), "side_by_side": side_by_side, "name": _name(path)}


def _name(path: Path) -> str:
    return path.stem.removesuffix("_A").removesuffix("_B")


def _pictures(folder: Path, name: Callable[[Path], str] = _name) -> list[Path]:
    paths = [p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith(".")]
    if not paths:
        raise FileNotFoundError(
            f"images_datalist: {folder} must hold pictures ({', '.join(_SUFFIXES)}), got none. Give the folder of the "
            "data set and one of its sections."
        )
    names = [name(path) for path in paths]
    if len(set(names)) < len(names):
        twice = next(each for each in names if names.count(each) > 1)
        raise ValueError(
            f"images_datalist: {folder} must hold one picture of a name, got several of {twice}. Remove or rename them."
        )
    return sorted(paths, key=lambda path: natural_order(name(path)))


def _missing(who: str, root: Path, section: str | None) -> FileNotFoundError:
    if not section or not root.is_dir():
        return FileNotFoundError(f"{who}: folder {root} does not exist. Give the folder of the data set.")
    there = sorted(path.name for path in root.iterdir() if path.is_dir())
    return FileNotFoundError(
        f"{who}: {root} must hold the folder {section} (pictures side by side), or {section}A and {section}B, got "
        f"{', '.join(there) or 'no folder'}. Give the folder of the data set and one of its sections."
    )
