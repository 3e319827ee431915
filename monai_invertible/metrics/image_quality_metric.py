"""Mean absolute error, PSNR and SSIM of pictures, in the grey levels 0 to 255 of their files.

MONAI's metrics compute them. What is decided here is the scale: [-1, 1] becomes whole levels, as in a written file, but
in floating point. The published evaluation of RevGAN subtracts arrays of 8-bit integers, which wrap around at 256 (its
mean absolute errors of 130 contradict its PSNR of 26 dB, which is an error of 12.4 at most), and computes the SSIM of
flattened arrays; neither can be compared with these.
"""

from __future__ import annotations

import torch
from monai.metrics.regression import MAEMetric, PSNRMetric, RegressionMetric, SSIMMetric

from monai_invertible.metrics.regression_scores import RegressionScores

__all__ = ["ImageQualityMetric", "grey_levels"]

_METRICS: dict[str, RegressionMetric] = {
    "mae": MAEMetric(),
    "psnr": PSNRMetric(max_val=255.0),
    "ssim": SSIMMetric(spatial_dims=2, data_range=255.0),  # Gaussian window of 11 pixels, mean of the channels
}


def grey_levels(image: torch.Tensor) -> torch.Tensor:
    """[-1, 1] -> whole numbers 0 to 255, float32; what is outside is clipped."""
    return image.as_subclass(torch.Tensor).float().clamp(-1.0, 1.0).add(1.0).mul(127.5).round()


class ImageQualityMetric(RegressionScores):
    """One score of pictures: a value an image.

    ``metric(prediction, truth, name)`` adds an image; ``get_buffer()`` gives the values (images, 1), in the order of
    ``volume_key``; ``aggregate()`` their mean; ``reset()`` starts again. In a distributed run both gather
    all processes.

    Args:
        metric: "mae" (grey levels), "psnr" (dB, peak 255; infinite for equal pictures) or "ssim" (Wang et al. 2004).

    Raises:
        ValueError: if there is no such metric or shapes do not fit.
    """

    def __init__(self, metric: str) -> None:
        if metric not in _METRICS:
            raise ValueError(
                f"ImageQualityMetric: metric must be one of {', '.join(_METRICS)}, got {metric!r}. Choose one."
            )
        super().__init__(_METRICS[metric])

    def __call__(self, prediction: torch.Tensor, truth: torch.Tensor, name: str) -> None:
        """Add a picture (C, rows, columns) in [-1, 1]."""
        super().__call__(grey_levels(prediction), grey_levels(truth), name)
