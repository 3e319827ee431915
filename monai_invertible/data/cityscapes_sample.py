"""A sample set in pix2pix's format of Cityscapes: real photos, and label pictures made from them by an explicit rule.

The rule looks at colours only and knows nothing of streets: what it calls a road is what is dark. So the relation
between photo and labels can be learned, and that is all. The set shows that code works; scores on it say nothing about
Cityscapes, whose data must be requested from its owners (https://www.cityscapes-dataset.com).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from monai_invertible.data.label_colors import CITYSCAPES_COLORS
from monai_invertible.data.sample_pictures import load_picture, write_picture_pairs

__all__ = ["write_cityscapes_sample"]

# A class of the sample set is what is nearest to this colour in a photo.
_PHOTO_COLORS: dict[str, tuple[int, int, int]] = {
    "road": (40, 40, 45),
    "sidewalk": (165, 160, 155),
    "building": (100, 95, 95),
    "vegetation": (85, 105, 45),
    "terrain": (150, 115, 75),
    "sky": (225, 230, 235),
    "person": (180, 60, 50),
    "car": (55, 80, 145),
}
_RULE = "\n".join(f"  - {name}: {color}" for name, color in _PHOTO_COLORS.items())
_NOTE = f"""# Sample data in pix2pix's format of Cityscapes

Not Cityscapes, and no score on it compares with a published one.

- A: random square pieces of photos distributed with scikit-learn (china, flower: CC BY 2.0, authors in
  sklearn/datasets/images/README.txt) and scikit-image (astronaut, rocket: public domain; chelsea, coffee: CC0;
  motorcycle_left: Middlebury 2014 stereo benchmark). Pieces of one photo may overlap; val has other photos than train.
- B: "labels" in the colours of Cityscapes. They are not what is in the photo. Each pixel of the blurred photo has the
  class whose colour in this list (red, green, blue) is nearest:
{_RULE}

train/1.jpg is A and B side by side; trainA/1_A.jpg and trainB/1_B.jpg are the same pair in two files. Likewise val.
"""
_SKIMAGE, _SKLEARN = ("skimage", "scikit-image"), ("sklearn", "scikit-learn")
_PHOTOS = {
    "train": [
        (*_SKLEARN, "datasets/images/china.jpg"),
        (*_SKIMAGE, "data/astronaut.png"),
        (*_SKIMAGE, "data/chelsea.png"),
        (*_SKIMAGE, "data/motorcycle_left.png"),
    ],
    "val": [(*_SKLEARN, "datasets/images/flower.jpg"), (*_SKIMAGE, "data/coffee.png"), (*_SKIMAGE, "data/rocket.jpg")],
}


def write_cityscapes_sample(
    directory: str | os.PathLike,
    *,
    train: int = 96,
    val: int = 24,
    size: int = 256,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write ``train/1.jpg`` (photo and labels side by side), ``trainA/1_A.jpg``, ``trainB/1_B.jpg``, ...

    The same arguments give the same bytes; a pair does not depend on how many others are written.

    Args:
        directory: where to write; a non-empty one is refused.
        train: pairs to train on.
        val: pairs of other photos.
        size: rows and columns of a picture, at least 16.
        seed: which pieces of the photos.
        overwrite: replace a sample set that this function wrote before (and nothing else).
        progress: called with one line a section.

    Returns:
        the directory.

    Raises:
        ValueError: a size below 16 or no pair of a section.
        FileExistsError: if the directory is not empty. FileNotFoundError: if a package with photos is not installed.
    """
    if size < 16 or min(train, val) < 1:
        raise ValueError(
            "write_cityscapes_sample: size must be at least 16, train and val at least 1, got "
            f"size={size}, train={train}, val={val}. Use for example train=96, val=24."
        )

    def make(section: str, number: int) -> tuple[np.ndarray, np.ndarray]:
        package, distribution, path = _PHOTOS[section][number % len(_PHOTOS[section])]
        photo = load_picture(package, path, distribution)
        rng = np.random.default_rng((seed, list(_PHOTOS).index(section), number))
        edge = int(rng.integers(160, 281))
        row, column = (int(rng.integers(0, n - edge + 1)) for n in photo.shape[:2])
        piece = photo[row : row + edge, column : column + edge]
        return piece, _labels(piece)

    return write_picture_pairs(directory, _NOTE, make, {"train": train, "val": val}, size, overwrite, progress)


def _labels(photo: np.ndarray) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(photo.astype(np.float32), (2, 2, 0))
    distances = np.stack([np.square(blurred - color).sum(axis=-1) for color in _PHOTO_COLORS.values()])
    colors = np.array([CITYSCAPES_COLORS[name] for name in _PHOTO_COLORS], dtype=np.uint8)
    return colors[distances.argmin(axis=0)]
