"""Real MRI that ships inside ordinary Python packages, deformed into different subjects.

- The MNI152 2009a T1 template (197 x 233 x 189, 1 mm, skull stripped) in nilearn's wheel, and its maps of the fractions
  of grey and white matter: Fonov et al., NeuroImage 47, 2009.
- An echo-planar scan of one person (128 x 96 x 24, 2 x 2 x 2.2 mm) among nibabel's test data.

Both are read by path: nilearn is not imported, nothing is downloaded. A subject is x -> intensity(template(zoom x +
u(x))) with a random smooth displacement u, so anatomy differs from subject to subject but stays that of the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["TEMPLATE_NOTICE", "load_scan", "random_smooth_field", "random_brain_slices"]

TEMPLATE_NOTICE = """MNI152 2009a template (McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill
  University; ICBM licence: free use, copy and distribution with this notice; distributed with nilearn, BSD-3)"""

_MNI = "datasets/data/mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"

# package, path inside it, voxel size in mm, centre of the brain in voxels; axes left-right, posterior-anterior, upwards
_SCANS: dict[str, tuple[str, str, tuple[float, ...], tuple[float, ...]]] = {
    "t1": ("nilearn", _MNI.format("t1"), (1.0, 1.0, 1.0), (98.0, 116.0, 88.0)),
    "gm": ("nilearn", _MNI.format("gm"), (1.0, 1.0, 1.0), (98.0, 116.0, 88.0)),
    "wm": ("nilearn", _MNI.format("wm"), (1.0, 1.0, 1.0), (98.0, 116.0, 88.0)),
    "epi": ("nibabel", "tests/data/example4d.nii.gz", (2.0, 2.0, 2.2), (64.0, 47.0, 13.0)),
}


@cache
def load_scan(scan: str, blur: float = 0.0, order: int = 3) -> Any:
    """Spline coefficients of the scan, scaled to [0, 1] and blurred by ``blur`` voxels; of order 1: its values."""
    import nibabel
    from scipy.ndimage import gaussian_filter, spline_filter

    package, inside = _SCANS[scan][:2]
    spec = find_spec(package)
    path = Path(spec.submodule_search_locations[0], inside) if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        raise FileNotFoundError(
            f"sample data: the image {inside} of the package {package} is needed, got none. pip install {package}."
        )
    image: Any = nibabel.load(path)
    volume = np.asarray(image.dataobj, dtype=np.float32)
    volume = volume[..., 0] if volume.ndim == 4 else volume
    volume = gaussian_filter(volume / volume.max(), blur) if blur > 0 else volume / volume.max()
    return spline_filter(volume, order=order, output=np.float32) if order > 1 else volume


def random_smooth_field(shape: Sequence[int], rng: np.random.Generator, order: int = 5) -> np.ndarray:
    """A random sum of the slowest cosines of every dimension, float32, scaled to a largest magnitude of 1."""
    field = rng.standard_normal((order,) * len(shape))
    field /= 1.0 + sum(np.square(axis) for axis in np.indices(field.shape))
    for size in shape:  # each turn transforms the first axis and moves it to the end
        cosines = np.cos(np.pi * np.outer(np.arange(order), (np.arange(size) + 0.5) / size))
        field = np.tensordot(field, cosines, axes=(0, 0))
    return (field / np.abs(field).max()).astype(np.float32)


def random_brain_slices(
    scan: str, shape: Sequence[int], pixel: float, slice_gap: float, rng: np.random.Generator
) -> np.ndarray:
    """Axial slices of a random subject, nose up, the brain in the centre.

    Args:
        scan: "t1" or "epi".
        shape: (slices, rows, columns).
        pixel: size of a pixel in mm.
        slice_gap: distance between slices in mm.
        rng: the source of the subject.

    Returns:
        float32 magnitudes of ``shape``, at least 0, at most about 1.

    Raises:
        FileNotFoundError: if the package that has the scan is not installed.
    """
    from scipy.ndimage import map_coordinates

    _, _, voxel, centre = _SCANS[scan]
    coefficients = load_scan(scan, round(0.4 * np.sqrt(max(pixel**2 - voxel[0] ** 2, 0.0)) / voxel[0], 3))
    slices, rows, columns = (np.arange(n, dtype=np.float32) - n // 2 for n in shape)
    offsets = np.meshgrid(
        slices * slice_gap + rng.uniform(-4.0, 4.0), -rows * pixel, columns * pixel, indexing="ij", sparse=True
    )
    mm = [offset / rng.uniform(0.93, 1.02) + 8.0 * random_smooth_field(shape, rng) for offset in offsets]
    upwards, forwards, right = mm
    axes = zip((right, forwards, upwards), voxel, centre, strict=True)
    points = [axis / size + middle for axis, size, middle in axes]
    image = map_coordinates(coefficients, points, order=3, prefilter=False, mode="constant")
    image = np.clip(image, 0.0, None) ** rng.uniform(0.8, 1.4)
    return image * np.exp(0.25 * random_smooth_field(shape, rng))
