"""MONAI's metrics of images, a value for each named image (and channel)."""

from __future__ import annotations

import torch
from monai.metrics.regression import RegressionMetric

from monai_invertible.metrics.named_scores import NamedScores

__all__ = ["RegressionScores"]


class RegressionScores(NamedScores):
    """``metric(prediction, truth, name)`` adds an image; ``get_buffer()`` gives the values (images, 1), or (images,
    channels) with ``channel_wise``, in the order of ``volume_key``; ``aggregate()`` their mean; ``reset()`` starts
    again. In a distributed run both gather all processes.

    Args:
        metric: of MONAI (``PSNRMetric``, ``SSIMMetric``, ``MultiScaleSSIMMetric``, ``MAEMetric``, ``MSEMetric``).
        channel_wise: a value for each channel.

    Raises:
        ValueError: if shapes do not fit.
    """

    def __init__(self, metric: RegressionMetric, channel_wise: bool = False) -> None:
        super().__init__()
        self.metric = metric
        self.channel_wise = channel_wise

    def __call__(self, prediction: torch.Tensor, truth: torch.Tensor, name: str) -> None:
        """Add an image (C, \\*spatial)."""
        if prediction.shape != truth.shape:
            raise ValueError(
                f"{type(self).__name__}: prediction and truth of {name} must have one shape, got "
                f"{tuple(prediction.shape)} and {tuple(truth.shape)}. Bring one to the grid of the other."
            )
        dim = 1 if self.channel_wise else 0  # channels as a batch of images, or one image
        images = [image.as_subclass(torch.Tensor).float().unsqueeze(dim) for image in (prediction, truth)]
        self.add(name, self.metric._compute_metric(*images))  # calling the metric would also collect
