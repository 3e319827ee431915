"""How well label pictures agree: pixel accuracy, class accuracy and mean intersection over union.

A class is the nearest colour of a palette, so that lossy files and what a network paints have one, too. With n_ij the
pixels of true class i called class j,

    pixel accuracy = sum_i n_ii / sum_ij n_ij      class accuracy = mean_i n_ii / sum_j n_ij
    mean IoU = mean_i n_ii / (sum_j n_ij + sum_j n_ji - n_ii)

Pixels of no scored class in the truth are left out; a scored pixel that was called void is wrong. Means are over the
classes that occur. As for Cityscapes' benchmark, the pixels of all images are counted together.

Source: Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic Segmentation, CVPR 2015, section 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from monai_invertible.metrics.named_scores import NamedScores

__all__ = ["LabelColorMetric", "nearest_colors"]

_Colors = Mapping[str, Sequence[int]]


def nearest_colors(levels: torch.Tensor, colors: _Colors) -> torch.Tensor:
    """(3, rows, columns) in [0, 255] -> (rows, columns) int64: which colour is nearest, the first of equal ones."""
    palette = torch.tensor(list(colors.values()), dtype=torch.float32, device=levels.device)
    pixels = levels.as_subclass(torch.Tensor).float().flatten(1)
    # |p - c|^2 without |p|^2, which is the same for all colours
    distance = palette.square().sum(dim=1, keepdim=True) - 2.0 * palette @ pixels
    return distance.argmin(dim=0).reshape(levels.shape[1:])


class LabelColorMetric(NamedScores):
    """One score of class maps.

    ``metric(prediction, truth, name)`` adds an image; ``get_buffer()`` gives the score of each (images, 1), in the
    order of ``volume_key``; ``aggregate()`` that of all pixels together; ``reset()`` starts again. In a distributed run
    both gather all processes.

    Args:
        metric: "pixel_accuracy", "class_accuracy" or "mean_iou".
        classes: how many are scored; higher numbers mean void.

    Raises:
        ValueError: if there is no such metric or shapes do not fit.
    """

    def __init__(self, metric: str, classes: int) -> None:
        super().__init__()
        if metric not in ("pixel_accuracy", "class_accuracy", "mean_iou"):
            raise ValueError(
                f"LabelColorMetric: metric must be one of pixel_accuracy, class_accuracy, mean_iou, got {metric!r}. "
                "Choose one."
            )
        self.metric = metric
        self.classes = classes

    def __call__(self, prediction: torch.Tensor, truth: torch.Tensor, name: str) -> None:
        """Add a class map (rows, columns)."""
        if prediction.shape != truth.shape:
            raise ValueError(
                f"LabelColorMetric: prediction and truth of {name} must be class maps of one shape, got "
                f"{tuple(prediction.shape)} and {tuple(truth.shape)}. Resize the prediction to the size of the truth."
            )
        n = self.classes
        scored = truth < n
        cells = truth[scored] * (n + 1) + prediction[scored].clamp(max=n)
        self.add(name, torch.bincount(cells, minlength=n * (n + 1)))

    def _score(self, counts: torch.Tensor) -> torch.Tensor:
        """Of a matrix (classes, classes and void); NaN without a scored pixel."""
        right, of_class, called = counts.diagonal(), counts.sum(dim=1), counts.sum(dim=0)[:-1]
        if self.metric == "pixel_accuracy":
            return right.sum() / of_class.sum()
        below = of_class if self.metric == "class_accuracy" else of_class + called - right
        return (right / below)[below > 0].mean()

    def _counts(self) -> torch.Tensor:
        return self.rows().reshape(-1, self.classes, self.classes + 1)

    def get_buffer(self) -> torch.Tensor:
        """The score of each image, (images, 1) float64."""
        return torch.stack([self._score(counts) for counts in self._counts()])[:, None]

    def aggregate(self) -> torch.Tensor:
        """The score of all pixels."""
        return self._score(self._counts().sum(dim=0))
