"""A sample set in the format of CIFAR-10, cut from ten real pictures in seconds, without a download.

The class of an image is the picture that it was cut from. The set shows that code works; scores on it say nothing about
CIFAR-10.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from monai_invertible.data.atomic_path import atomic_path
from monai_invertible.data.cifar10_datalist import CIFAR10_FOLDER
from monai_invertible.data.python2_pickle import dump_python2_pickle
from monai_invertible.data.sample_folder import prepare_sample_folder
from monai_invertible.data.sample_pictures import load_picture

__all__ = ["write_cifar10_sample"]

_SKIMAGE, _SKLEARN = ("skimage", "scikit-image"), ("sklearn", "scikit-learn")
_PICTURES = {
    "astronaut": (*_SKIMAGE, "data/astronaut.png"),
    "cat": (*_SKIMAGE, "data/chelsea.png"),
    "coffee": (*_SKIMAGE, "data/coffee.png"),
    "flower": (*_SKLEARN, "datasets/images/flower.jpg"),
    "galaxies": (*_SKIMAGE, "data/hubble_deep_field.jpg"),
    "motorcycle": (*_SKIMAGE, "data/motorcycle_left.png"),
    "pagoda": (*_SKLEARN, "datasets/images/china.jpg"),
    "retina": (*_SKIMAGE, "data/retina.jpg"),
    "rocket": (*_SKIMAGE, "data/rocket.jpg"),
    "tissue": (*_SKIMAGE, "data/ihc.png"),
}
_NOTE = """# Sample data in the format of CIFAR-10

Not CIFAR-10, and no score on it compares with a published one.

Each image is a piece of 32 x 32 pixels of one of ten pictures, and its class is that picture: astronaut, cat, coffee,
flower, galaxies, motorcycle, pagoda, retina, rocket, tissue.

- The pictures are distributed with scikit-image (astronaut, rocket, hubble_deep_field: public domain; chelsea, coffee,
  retina: CC0; ihc: Center for Microscopy And Molecular Imaging, no restriction known; motorcycle_left: Middlebury 2014
  stereo benchmark) and with scikit-learn (china, flower: CC BY 2.0, authors in sklearn/datasets/images/README.txt).
- A picture is divided into fields of 64 x 64 pixels. A quarter of the fields, drawn at random, are of test_batch, the
  others of data_batch_1 to 5. No image reaches over the edge of a field: none of test_batch shares a pixel with one to
  train on, but it may lie next to it.
- Images of one field overlap.
"""
_EDGE, _FIELD = 32, 64  # pixels of an image, and of the fields of a picture
_FILES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def write_cifar10_sample(
    directory: str | os.PathLike,
    *,
    images: int = 6000,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write ``cifar-10-batches-py/data_batch_1``, ..., ``5``, ``test_batch`` and ``batches.meta``.

    The same arguments give the same bytes. As in CIFAR-10 the six batches are of one size, and a sixth of the images
    is for testing; the ten classes are equally frequent in each.

    Args:
        directory: where to write; a non-empty one is refused.
        images: of all batches together, a multiple of 60.
        seed: which pieces of the pictures, and their order.
        overwrite: replace a sample set that this function wrote before (and nothing else).
        progress: called with one line a batch.

    Returns:
        the directory.

    Raises:
        ValueError: not a multiple of 60 images.
        FileExistsError: if the directory is not empty. FileNotFoundError: if a package with pictures is not installed.
    """
    classes, files = len(_PICTURES), len(_FILES)
    if images < 1 or images % (classes * files):
        raise ValueError(
            f"write_cifar10_sample: images must be a multiple of {classes * files} ({files} batches of {classes} "
            f"classes), got {images}. Use for example images=6000."
        )
    pictures = [load_picture(package, path, distribution) for package, distribution, path in _PICTURES.values()]
    folder = prepare_sample_folder(directory, _NOTE, [f"{CIFAR10_FOLDER}/*"], overwrite)
    rng = np.random.default_rng(seed)
    fields = [_fields(picture, rng) for picture in pictures]
    size = images // files

    def save(name: str, entries: dict[bytes, Any]) -> None:
        with atomic_path(folder / CIFAR10_FOLDER / name) as path:
            path.write_bytes(dump_python2_pickle(entries))

    names = [name.encode() for name in _PICTURES]
    save("batches.meta", {b"num_cases_per_batch": size, b"label_names": names, b"num_vis": 3 * _EDGE**2})
    for number, file in enumerate(_FILES, start=1):
        labels = rng.permutation(np.arange(size) % classes).tolist()
        pieces = [_piece(pictures[label], fields[label][file == "test_batch"], rng) for label in labels]
        title = f"training batch {number} of {files - 1}" if file != "test_batch" else "testing batch 1 of 1"
        save(
            file,
            {
                b"batch_label": title.encode(),
                b"labels": labels,
                b"data": np.stack([piece.transpose(2, 0, 1).ravel() for piece in pieces]),
                b"filenames": [names[label] + b"_s_%06d.png" % place for place, label in enumerate(labels)],
            },
        )
        if progress is not None:
            progress(f"[{file}] {size} images of {_EDGE} x {_EDGE} pixels in {folder / CIFAR10_FOLDER / file}")
    return folder


def _fields(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """First row and column of each field of the batches to train on, and of the batch to test."""
    rows, columns = (range(0, length - _FIELD + 1, _FIELD) for length in picture.shape[:2])
    corners = rng.permutation([(row, column) for row in rows for column in columns])
    tested = len(corners) // 4
    return corners[tested:], corners[:tested]


def _piece(picture: np.ndarray, fields: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    row, column = fields[rng.integers(len(fields))] + rng.integers(0, _FIELD - _EDGE + 1, 2)
    return picture[row : row + _EDGE, column : column + _EDGE]
