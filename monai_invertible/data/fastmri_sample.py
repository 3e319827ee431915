"""A small sample set in exactly fastMRI's single-coil format, made from real MRI in seconds and without a download.

kspace = FFT(slice * exp(i phase)) + complex Gaussian noise, with a smooth phase. This is an inverse crime: data are
simulated with the very operator that reconstruction inverts, without coils, motion or relaxation. The set shows that
code works. Scores on it say nothing about fastMRI, whose data must be requested from its owners
(https://fastmri.med.nyu.edu).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from monai_invertible.data.atomic_path import atomic_path
from monai_invertible.data.sample_anatomy import TEMPLATE_NOTICE, random_brain_slices, random_smooth_field
from monai_invertible.data.sample_folder import prepare_sample_folder

__all__ = ["write_fastmri_sample"]

_NOTE = f"""# Sample data in fastMRI's single-coil format

Simulated from real images; not fastMRI data, and no score on it compares with a published one.

- Anatomy: randomly deformed slices of the T1 image of the {TEMPLATE_NOTICE}.
  The last test volume is an echo-planar scan of another person (distributed with nibabel, MIT).
- k-space: Fourier transform of the slice with a smooth phase, plus complex Gaussian noise (an inverse crime).
- All subjects come from the same template: they share its anatomy.

"""
_SPLITS = ("singlecoil_train", "singlecoil_val", "singlecoil_test")


def write_fastmri_sample(
    directory: str | os.PathLike,
    *,
    train: int = 8,
    val: int = 3,
    test: int = 2,
    slices: int = 8,
    size: int = 192,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Path]:
    """Write ``singlecoil_train``, ``singlecoil_val`` and ``singlecoil_test``: one HDF5 file a subject.

    k-space has 2 * ``size`` rows (the readout is oversampled twice) and ``size`` to 7/6 ``size`` columns; the
    reconstruction is the central ``size`` x ``size`` of the magnitude image, 192 mm wide at every size. Magnitudes are
    those of fastMRI (image maximum 2e-4 to 6e-4). Test files have masked k-space, the mask (4-fold and 8-fold in turn)
    and no reconstruction. The same arguments give the same data; a subject does not depend on how many others are
    written.

    Args:
        directory: where to write; a non-empty one is refused.
        train, val, test: how many subjects; the last of at least two test subjects is a scan of another person.
        slices: slices a subject.
        size: rows and columns of the reconstruction in pixels, even and at least 16.
        seed: the source of all subjects.
        overwrite: replace a sample set that this function wrote before (and nothing else).
        progress: called with one line a file.

    Returns:
        the path of each split.

    Raises:
        FileExistsError: if the directory is not empty. FileNotFoundError: if the package with the images is not
            installed.
    """
    if size < 16 or size % 2 or slices < 1 or min(train, val, test) < 0:
        raise ValueError(
            "write_fastmri_sample: size must be even and at least 16, slices at least 1, subjects at least 0, got "
            f"size={size}, slices={slices}, train={train}, val={val}, test={test}. Use for example size=64."
        )
    directory = prepare_sample_folder(directory, _NOTE, [f"{name}/*.h5" for name in _SPLITS], overwrite)
    total = train + val + test
    number = 0
    for split, (name, count) in enumerate(zip(_SPLITS, (train, val, test), strict=True)):
        (directory / name).mkdir(exist_ok=True)
        for subject in range(count):
            number += 1
            path = directory / name / f"file{1000000 * (split + 1) + subject:07d}.h5"
            scan = "epi" if name == "singlecoil_test" and subject == count - 1 > 0 else "t1"
            acceleration = (4, 8)[subject % 2] if name == "singlecoil_test" else None
            _write_volume(path, scan, slices, size, acceleration, np.random.default_rng((seed, split, subject)))
            if progress is not None:
                progress(f"[{number}/{total}] {path}")
    return {name: directory / name for name in _SPLITS}


def _write_volume(
    path: Path, scan: str, slices: int, size: int, acceleration: int | None, rng: np.random.Generator
) -> None:
    import h5py
    from fastmri.data.subsample import RandomMaskFunc

    rows, columns = 2 * size, size + 2 * int(rng.integers(size // 12 + 1))
    pixel, gap = 192.0 / size, min(5.0, 40.0 / slices)
    image = random_brain_slices(scan, (slices, rows, columns), pixel, gap, rng).astype(np.complex128)
    image *= rng.uniform(2e-4, 6e-4) / np.abs(image).max()
    image *= np.exp(1j * (rng.uniform(0.0, 2.0 * np.pi) + np.pi * random_smooth_field(image.shape, rng)))
    kspace = _fft2c(image)
    noise = rng.standard_normal((*kspace.shape, 2)) @ np.array([1.0, 1j])
    kspace += rng.uniform(0.005, 0.02) * np.abs(image).max() / np.sqrt(2.0) * noise
    kspace = kspace.astype(np.complex64)
    top, left = (rows - size) // 2, (columns - size) // 2
    reconstruction = np.abs(_fft2c(kspace, inverse=True))[:, top : top + size, left : left + size].astype(np.float32)
    attributes: dict[str, Any] = {"acquisition": {"t1": "AXT1", "epi": "EPI"}[scan], "patient_id": rng.bytes(16).hex()}
    if acceleration is None:
        arrays = {"kspace": kspace, "reconstruction_esc": reconstruction}
        attributes |= {"norm": float(np.linalg.norm(reconstruction)), "max": float(reconstruction.max())}
    else:
        function = RandomMaskFunc([0.32 / acceleration], [acceleration])
        mask, low = function((1, columns, 2), seed=int(rng.integers(2**31)))
        mask = mask.numpy().reshape(-1)
        arrays = {"kspace": kspace * mask, "mask": mask}
        attributes |= {"acceleration": acceleration, "num_low_frequency": low}
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        for key, value in arrays.items():
            file.create_dataset(key, data=value)
        file.create_dataset("ismrmrd_header", data=_header(rows, columns, size, slices, pixel, gap))
        file.attrs.update(attributes)


def _fft2c(x: np.ndarray, inverse: bool = False) -> np.ndarray:
    """Centred orthonormal FFT of rows and columns."""
    transform = np.fft.ifft2 if inverse else np.fft.fft2
    axes = (-2, -1)
    return np.fft.fftshift(transform(np.fft.ifftshift(x, axes=axes), norm="ortho"), axes=axes)


def _header(rows: int, columns: int, size: int, slices: int, pixel: float, gap: float) -> str:
    """An ISMRMRD header with the elements of a 2D Cartesian scan."""

    def space(name: str, x: int, y: int) -> str:
        return (
            f"<{name}><matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize>"
            f"<fieldOfView_mm><x>{x * pixel:g}</x><y>{y * pixel:g}</y><z>{gap:g}</z></fieldOfView_mm></{name}>"
        )

    def limit(name: str, maximum: int, center: int) -> str:
        return f"<{name}><minimum>0</minimum><maximum>{maximum}</maximum><center>{center}</center></{name}>"

    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
        "<acquisitionSystemInformation><systemVendor>monai_invertible sample data, simulated</systemVendor>"
        "<receiverChannels>1</receiverChannels></acquisitionSystemInformation>"
        "<experimentalConditions><H1resonanceFrequency_Hz>127740000</H1resonanceFrequency_Hz></experimentalConditions>"
        f"<encoding>{space('encodedSpace', rows, columns)}{space('reconSpace', size, size)}<encodingLimits>"
        f"{limit('kspace_encoding_step_1', columns - 1, columns // 2)}{limit('slice', slices - 1, 0)}</encodingLimits>"
        "<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>\n"
    )
