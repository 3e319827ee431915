"""CIFAR-10 as its authors distribute it for Python, as MONAI data lists.

``cifar-10-batches-py`` holds five batches to train on (``data_batch_1`` to ``5``), ``test_batch``, and
``batches.meta`` with the names of the classes: pickles, which are read without running what they may contain.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_invertible.data.python2_pickle import load_python2_pickle

__all__ = ["CIFAR10_FOLDER", "cifar10_classes", "cifar10_datalist"]

CIFAR10_FOLDER = "cifar-10-batches-py"
_SECTIONS = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_SHAPE = (3, 32, 32)


def cifar10_datalist(directory: str | os.PathLike, section: str | Sequence[str] = "train") -> list[dict[str, Any]]:
    """Read the images of a section into memory: 154 MB for the 50,000 to train on.

    Args:
        directory: ``cifar-10-batches-py`` or the folder that holds it.
        section: "train", "test", or the names of batches, such as ["data_batch_1", "data_batch_2"].

    Returns:
        one dictionary an image, in the order of the files: ``image`` (uint8 array of red, green and blue, (3, 32, 32),
        not to be written to), ``label`` (0 to 9) and ``name`` ("test_batch-00000", ...).

    Raises:
        FileNotFoundError: if the folder or a batch is missing. OSError: if a file cannot be read.
        ValueError: if a batch does not hold images of 32 x 32 and as many labels of known classes.
    """
    classes = len(cifar10_classes(directory))
    parts = [section] if isinstance(section, str) else section
    batches = [name for part in parts for name in _SECTIONS.get(part, [part])]
    return [item for name in batches for item in _items(_file(directory, name), classes)]


def cifar10_classes(directory: str | os.PathLike) -> list[str]:
    """The names of the classes, in the order of their labels.

    Raises:
        FileNotFoundError: if the folder or ``batches.meta`` is missing. OSError: if it cannot be read.
        ValueError: if it holds no names.
    """
    path = _file(directory, "batches.meta")
    names = load_python2_pickle(path).get(b"label_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, bytes) for name in names):
        raise ValueError(
            f'{path}: batches.meta must hold the names of the classes under "label_names", got {names!r:.80}. Use '
            "the version of CIFAR-10 for Python."
        )
    return [name.decode() for name in names]


def _file(directory: str | os.PathLike, name: str) -> Path:
    root = Path(directory)
    if not root.is_dir():
        raise FileNotFoundError(f"cifar10_datalist: folder {root} does not exist. Give the folder of the data set.")
    folder = root / CIFAR10_FOLDER if (root / CIFAR10_FOLDER).is_dir() else root
    if not (folder / name).is_file():
        there = sorted(path.name for path in folder.iterdir())
        raise FileNotFoundError(
            f"cifar10_datalist: {folder} must hold the file {name}, got {', '.join(there[:8]) or 'nothing'}. Give the "
            f'folder {CIFAR10_FOLDER} of the unpacked archive, and a section: "train", "test" or names of batches.'
        )
    return folder / name


def _items(path: Path, classes: int) -> Iterator[dict[str, Any]]:
    batch = load_python2_pickle(path)
    data, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != np.prod(_SHAPE):
        found = f"shape {data.shape}" if isinstance(data, np.ndarray) else f"the entries {list(batch)}"
        raise ValueError(
            f'{path}: a batch must hold images as "data" of shape (images, 3072), got {found}. Use the version of '
            "CIFAR-10 for Python."
        )
    if not isinstance(labels, list) or len(labels) != len(data):
        found = str(len(labels)) if isinstance(labels, list) else f"the entries {list(batch)}"
        raise ValueError(
            f'{path}: a batch must hold "labels", one for each of its {len(data)} images, got {found}. Use the version '
            "of CIFAR-10 for Python."
        )
    wrong = [label for label in labels if not isinstance(label, int) or not 0 <= label < classes]
    if wrong:
        raise ValueError(
            f"{path}: labels must be 0 to {classes - 1}, as batches.meta names {classes} classes, got {wrong[0]!r}. "
            "Take both files from one copy of the data set."
        )
    for number, (image, label) in enumerate(zip(data.reshape(-1, *_SHAPE), labels, strict=True)):
        yield {"image": image, "label": label, "name": f"{path.name}-{number:05d}"}
