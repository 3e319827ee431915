"""Which classes of images are taken for which others."""

from __future__ import annotations

import torch

from monai_invertible.metrics.named_scores import NamedScores

__all__ = ["ClassConfusion"]


class ClassConfusion(NamedScores):
    """The true and the predicted class of images.

    ``metric(prediction, label, name)`` adds an image; ``get_buffer()`` gives the confusion matrix (classes, classes),
    how many of each true class (row) were called what (column); ``aggregate()`` the accuracy; ``reset()`` starts again.
    In a distributed run both gather all processes; an image that a distributed sampler repeats counts once, which
    Ignite's ``ConfusionMatrix`` would count twice.

    Args:
        classes: how many.

    Raises:
        ValueError: if a prediction has not one number a class, or a label is none of them.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def __call__(self, prediction: torch.Tensor, label: int, name: str) -> None:
        """Add an image by its logits or probabilities (classes,); of equal ones the first counts."""
        if prediction.shape != (self.classes,) or not 0 <= int(label) < self.classes:
            raise ValueError(
                f"ClassConfusion: {name} must have {self.classes} logits and a label of 0 to {self.classes - 1}, got "
                f"shape {tuple(prediction.shape)} and {label}. Give the number of the network's classes."
            )
        self.add(name, torch.tensor([int(label), int(prediction.argmax())]))

    def get_buffer(self) -> torch.Tensor:
        """The confusion matrix, int64."""
        label, predicted = self.rows().long().T
        cells = label * self.classes + predicted
        return torch.bincount(cells, minlength=self.classes**2).reshape(self.classes, self.classes)

    def aggregate(self) -> torch.Tensor:
        """The fraction of images whose class was found."""
        counts = self.get_buffer()
        return counts.diagonal().sum() / counts.sum()
