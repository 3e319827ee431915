"""Load a diffusion scan as tensors of high resolution, of simulated low resolution, or both, and check everything.

What would spoil a training or a prediction without a word is an error here, which names the subject and the file.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.transforms.transform import MapTransform

from monai_invertible.data.block_mean import block_mean, repeat_blocks
from monai_invertible.data.diffusion_signal import fit_diffusion_tensors, read_diffusion_gradients
from monai_invertible.data.read_volume import check_same_grid, read_volume
from monai_invertible.transforms.subject_image import subject_image

__all__ = ["LoadDiffusionTensord"]


class LoadDiffusionTensord(MapTransform):
    """Add diffusion tensors and the brain mask to an item of ``hcp_datalist``, float32 ``MetaTensor``.

    Tensors are (6, \\*spatial): Dxx, Dxy, Dxz, Dyy, Dyz, Dzz in mm^2/s, 0 outside the brain. Of a signal (DWI) they are
    fitted by weighted least squares (dipy).

    - ``low_resolution=False``: the file is of high resolution. "y" are its tensors. "x" are those of voxels ``factor``
      times as large: the signal's mean over the brain's voxels in each block, fitted again; for a file of tensors their
      mean (the same to first order). They are repeated on the grid of "y" (nearest neighbour).
    - ``low_resolution=True``: the file is of low resolution. "x" are its tensors, repeated on a grid of voxels
      ``factor`` times as small, whose affine covers the same space. There is no "y".

    "mask" (1, \\*spatial) is the brain on that grid. Affines (voxel to mm, RAS) are kept; tensors stay in the frame of
    the file (FSL: the voxel axes), whatever the affine. ``filename_or_obj`` is a name, not a file:
    ``<folder>/<subject>.nii.gz``.

    Args:
        factor: voxels of a block along each axis, at least 2.
        low_resolution: what the files are.
        b_max: volumes above this b-value (s/mm^2) are left out: the tensor model does not hold there. HCP has shells of
            1000, 2000 and 3000.
        b0_threshold: volumes up to this b-value count as not weighted; HCP's have 5.

    Raises:
        FileNotFoundError: if a file does not exist. OSError: if it cannot be read. ImportError: if a signal is to be
            fitted without dipy.
        ValueError: if a volume has numbers that are not finite, files of a subject do not fit together (voxels, affine,
            number of b-values and directions), the gradients allow no fit, the mask is empty, or tensors are not six
            components in mm^2/s.
    """

    def __init__(
        self, factor: int = 2, low_resolution: bool = False, b_max: float = 1500.0, b0_threshold: float = 50.0
    ) -> None:
        super().__init__(("dwi", "tensor", "bvals", "bvecs", "mask"), allow_missing_keys=True)
        if factor < 2:
            raise ValueError(f"LoadDiffusionTensord: factor must be at least 2, got {factor}. Use 2.")
        self.factor = factor
        self.low_resolution = low_resolution
        self.b_max = b_max
        self.b0_threshold = b0_threshold

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d: dict[Hashable, Any] = {key: value for key, value in data.items() if key not in self.keys}
        subject = str(d["subject"])
        fine, coarse, mask, affine = (self._signal if "dwi" in data else self._tensor)(data, subject)
        name = f"{Path(data['dwi'] if 'dwi' in data else data['tensor']).parent / subject}.nii.gz"
        brain = mask[None].astype(np.float32)
        if self.low_resolution:
            images = {"x": repeat_blocks(fine, self.factor), "mask": repeat_blocks(brain, self.factor)}
            scale = np.diag([*(1 / self.factor,) * 3, 1.0])
            scale[:3, 3] = 0.5 / self.factor - 0.5  # the corner stays where it is
            affine = affine @ scale
        else:
            images = {"x": repeat_blocks(coarse, self.factor, mask.shape), "y": fine, "mask": brain}
        return d | {key: subject_image(image, affine, name) for key, image in images.items()}

    def _signal(self, data: Mapping[Hashable, Any], subject: str) -> tuple[np.ndarray, ...]:
        """Tensors of the file's resolution, of blocks (the same if not needed), the mask and the affine."""
        path = data["dwi"]
        signal, affine = read_volume(path, subject, dimensions=4)
        bvals, bvecs = read_diffusion_gradients(data["bvals"], data["bvecs"], signal.shape[3], self.b0_threshold)
        mask = self._mask(data, subject, path, signal.shape[:3], affine)
        used = bvals <= self.b_max
        weighted = np.count_nonzero(bvals[used] > self.b0_threshold)
        if weighted < 6:
            raise ValueError(
                f"{data['bvals']}: a tensor needs at least six volumes with b from {self.b0_threshold:g} to b_max = "
                f"{self.b_max:g}, got {weighted} (subject {subject}). Raise b_max."
            )
        signal, gradients = signal[..., used], (bvals[used], bvecs[used])
        fine = coarse = fit_diffusion_tensors(signal, mask, *gradients, self.b0_threshold)
        if not self.low_resolution:
            means, blocks = block_mean(signal, mask, self.factor)
            coarse = fit_diffusion_tensors(means, blocks, *gradients, self.b0_threshold)
        return fine, coarse, mask, affine

    def _tensor(self, data: Mapping[Hashable, Any], subject: str) -> tuple[np.ndarray, ...]:
        path = data["tensor"]
        tensor, affine = read_volume(path, subject, dimensions=4)
        if tensor.shape[3] != 6:
            raise ValueError(
                f"{path}: a tensor must have the six components Dxx, Dxy, Dxz, Dyy, Dyz, Dzz along the fourth "
                f"dimension, got {tensor.shape[3]} (subject {subject}). Write it as FSL's dtifit --save_tensor does."
            )
        mask = self._mask(data, subject, path, tensor.shape[:3], affine, np.any(tensor, axis=-1))
        mean = float(tensor[mask][:, [0, 3, 5]].mean())
        if not 1e-5 < mean < 2e-2:
            raise ValueError(
                f"{path}: tensors must be in mm^2/s, in a brain about 0.001, got a mean diffusivity of {mean:.3g} "
                f"(subject {subject}). Convert the unit; um^2/ms times 0.001."
            )
        tensor = np.where(mask[..., None], tensor, np.float32(0))
        coarse = tensor if self.low_resolution else block_mean(tensor, mask, self.factor)[0]
        return np.moveaxis(tensor, -1, 0), np.moveaxis(coarse, -1, 0), mask, affine

    @staticmethod
    def _mask(
        data: Mapping[Hashable, Any],
        subject: str,
        first: str,
        shape: tuple[int, ...],
        affine: np.ndarray,
        default: np.ndarray | None = None,
    ) -> np.ndarray:
        if "mask" in data:
            volume, other = read_volume(data["mask"], subject)
            check_same_grid(first, shape, affine, data["mask"], volume.shape, other, subject)
            mask = volume != 0
        else:
            mask = np.ones(shape, dtype=bool) if default is None else default
        if not mask.any():
            raise ValueError(
                f"{data.get('mask', first)}: the brain must have a voxel, got an empty mask (subject {subject}). Make "
                "it again."
            )
        return mask
