"""What scores of named images have in common: rows in an order of their own, from all processes, none twice."""

from __future__ import annotations

import numpy as np
import torch
from monai.metrics.metric import Cumulative

from monai_invertible.metrics.volume_key import volume_key

__all__ = ["NamedScores"]


class NamedScores(Cumulative):
    """``add(name, row)`` keeps a row of numbers; ``rows()`` gives all, in the order of ``volume_key``.

    A row whose name was there before (a distributed sampler repeats items) counts once. For MONAI's handlers
    ``get_buffer()`` gives the rows, and ``aggregate()`` their mean, unless a subclass makes something else of them.
    """

    def add(self, name: str, row: torch.Tensor) -> None:
        """Keep the row of an image."""
        self.append(torch.cat([torch.tensor([volume_key(name)], dtype=torch.float64), row.cpu().double().flatten()]))

    def rows(self) -> torch.Tensor:
        """All rows of all processes, (images, numbers) float64.

        Raises:
            ValueError: before the first image.
        """
        buffer = super().get_buffer()
        if buffer is None:
            raise ValueError(
                f"{type(self).__name__}: there must be an image before its scores, got none. Call the metric first."
            )
        table = buffer.cpu().numpy()
        return torch.from_numpy(table[np.unique(table[:, 0], return_index=True)[1]][:, 1:])

    def get_buffer(self) -> torch.Tensor:
        """The rows."""
        return self.rows()

    def aggregate(self) -> torch.Tensor:
        """Their mean."""
        return self.rows().mean()
