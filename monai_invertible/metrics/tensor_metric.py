r"""Scores of diffusion tensors, one value a subject, over the brain or its interior.

With the truth :math:`D_c(v)` and the prediction :math:`\hat D_c(v)` of the six components c in the N voxels v,

.. math:: RMSE = 10^5 \sqrt{\frac{1}{6 N} \sum_{v, c} (\hat D_c(v) - D_c(v))^2}

in :math:`10^{-5}` mm^2/s. The brain is where :math:`\sum_c |D_c| > 10^{-7}` mm^2/s; its interior, the voxels whose cube
of 5 x 5 x 5 lies in the brain and in the image: there no interpolation has seen the background.

Sources: van der Ouderaa and Worrall, CVPR 2019, section 4.3 and the authors' code; Tanno et al., Bayesian Image Quality
Transfer with CNNs, MICCAI 2017.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_invertible.metrics.named_scores import NamedScores
from monai_invertible.operators import fractional_anisotropy, is_positive_definite, mean_diffusivity

__all__ = ["TensorMetric", "interior_mask", "tensor_brain_mask"]


def tensor_brain_mask(tensor: Tensor) -> Tensor:
    """(6, \\*spatial) in mm^2/s -> bool (\\*spatial): where the tensor is not 0."""
    return tensor.as_subclass(Tensor).abs().sum(0) > 1e-7


def interior_mask(mask: Tensor, size: int = 5) -> Tensor:
    """bool (x, y, z) -> bool: where the cube of ``size`` voxels around is in the mask and in the image."""
    padded = F.pad(mask[None].double(), (size // 2,) * 6)
    return F.avg_pool3d(padded, size, stride=1)[0] > 1 - 0.5 / size**3


def _rmse(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


_SCORES: dict[str, Callable[[Tensor, Tensor], float]] = {
    "rmse": lambda a, b: 1e5 * _rmse(a, b),
    "rmse_md": lambda a, b: 1e5 * _rmse(mean_diffusivity(a), mean_diffusivity(b)),
    "rmse_fa": lambda a, b: _rmse(fractional_anisotropy(a), fractional_anisotropy(b)),
    "positive_definite": lambda a, b: float(is_positive_definite(a).double().mean()),
}


class TensorMetric(NamedScores):
    """One score of diffusion tensors: a value a subject.

    ``metric(prediction, truth, subject=...)`` adds a subject; ``get_buffer()`` gives the values (subjects, 1), in the
    order of ``volume_key``; ``aggregate()`` their mean; ``reset()`` starts again. In a distributed run both gather all
    processes.

    Args:
        metric: "rmse" or "rmse_md" (of the mean diffusivity) in 1e-5 mm^2/s, "rmse_fa" (of the fractional anisotropy),
            or "positive_definite": the share of voxels whose predicted tensor has positive eigenvalues only.
        interior: score the interior of the brain alone.

    Raises:
        ValueError: if there is no such metric, shapes do not fit, or there is no brain (or interior) to score.
    """

    def __init__(self, metric: str = "rmse", interior: bool = False) -> None:
        super().__init__()
        if metric not in _SCORES:
            raise ValueError(f"TensorMetric: metric must be one of {', '.join(_SCORES)}, got {metric!r}. Choose one.")
        self.metric = metric
        self.interior = interior

    def __call__(self, prediction: Tensor, truth: Tensor, subject: str) -> None:
        """Add a subject.

        Args:
            prediction: (6, x, y, z) in mm^2/s.
            truth: likewise, on the same voxels, 0 outside the brain.
            subject: its name.
        """
        if prediction.shape != truth.shape or truth.ndim != 4 or truth.shape[0] != 6:
            raise ValueError(
                f"TensorMetric: prediction and truth of {subject} must be tensors (6, x, y, z) on the same voxels, got "
                f"{tuple(prediction.shape)} and {tuple(truth.shape)}. Compare on the grid of high resolution."
            )
        a, b = (x.detach().as_subclass(Tensor).cpu().double() for x in (prediction, truth))
        mask = tensor_brain_mask(b)
        mask = interior_mask(mask) if self.interior else mask
        if not mask.any():
            place = "a cube of 5 x 5 x 5 voxels in the brain" if self.interior else "a voxel other than 0"
            raise ValueError(f"TensorMetric: the truth of {subject} must have {place}, got none. Check its mask.")
        self.add(subject, torch.tensor(_SCORES[self.metric](a[:, mask], b[:, mask]), dtype=torch.float64))
