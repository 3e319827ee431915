"""The head of the reversible classifiers: what is largest, weighted."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["ClassifierHead"]


class ClassifierHead(nn.Module):
    """The maximum of each channel over all positions (and over the parts that batch pooling made of an image), then a
    linear layer without bias, times 0.125.

    Hascoet et al. 2019, arXiv 1910.11127, in its published code; after Page, How to Train Your ResNet, 2018.

    Args:
        channels: of the features.
        num_classes: of the logits.
        parts: how many neighbours in the batch are one image.

    Shapes: ``(B parts, channels, *spatial)`` to ``(B, num_classes)``.
    """

    def __init__(self, channels: int, num_classes: int, parts: int = 1) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(channels, num_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        largest = x.flatten(2).amax(2).unflatten(0, (-1, self.parts)).amax(1)
        return 0.125 * self.linear(largest)
