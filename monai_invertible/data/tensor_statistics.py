"""Mean and standard deviation of every channel over the brains of a training set, kept in a file next to the weights.

A network of standardised values is worth nothing without them. So a training computes them once, and evaluation,
inference and a resumed training read the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from monai_invertible.data.atomic_path import atomic_path

__all__ = ["TensorStatistics"]


class TensorStatistics:
    """``statistics.mean`` and ``statistics.std``: a float64 number for each channel.

    Args:
        mean: one number a channel.
        std: likewise, all positive.

    Raises:
        ValueError: if there are not equally many, or a standard deviation is not positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self.mean = torch.tensor(list(mean), dtype=torch.float64)
        self.std = torch.tensor(list(std), dtype=torch.float64)
        if self.mean.shape != self.std.shape or not bool((self.std > 0).all()):
            raise ValueError(
                "TensorStatistics: there must be equally many means and positive standard deviations, got "
                f"{list(mean)} and {list(std)}. Use those of a training set with different voxels."
            )

    @classmethod
    def measured(cls, items: Iterable[Mapping[str, Any]], key: str = "y", mask_key: str = "mask") -> TensorStatistics:
        """Those of the voxels of all items that are in their masks.

        Args:
            items: with the images (C, \\*spatial) at ``key``, and (1, \\*spatial) at ``mask_key``.
            key: of the images.
            mask_key: of the masks; other than 0 is the brain.

        Raises:
            ValueError: if there is no voxel in a mask.
        """
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for item in items:
            voxels = _plain(item[key])[:, _plain(item[mask_key])[0] != 0].double()
            count, total = count + voxels.shape[1], total + voxels.sum(1)
            squares = squares + voxels.square().sum(1)
        if not count:
            raise ValueError("TensorStatistics: there must be a voxel to measure, got none. Give the training set.")
        mean = total / count
        return cls(mean.tolist(), (squares / count - mean.square()).sqrt().tolist())

    @classmethod
    def read(cls, file: str | os.PathLike) -> TensorStatistics:
        """Those that a training has written.

        Raises:
            FileNotFoundError: if there is no such file. OSError: if it cannot be read.
        """
        if not Path(file).is_file():
            raise FileNotFoundError(
                f"TensorStatistics: {file} does not exist. A training writes it next to its checkpoints: train first, "
                "or give its folder as ckpt_dir."
            )
        try:
            content = json.loads(Path(file).read_text(encoding="utf-8"))
            return cls(content["mean"], content["std"])
        except (KeyError, TypeError, ValueError) as error:
            raise OSError(
                f"TensorStatistics: {file} must hold mean and std, got something else ({error}). Train again, or "
                "restore the file."
            ) from error

    def write(self, file: str | os.PathLike) -> TensorStatistics:
        """Write them as JSON, and return them."""
        with atomic_path(file) as path:
            path.write_text(json.dumps({"mean": self.mean.tolist(), "std": self.std.tolist()}), encoding="utf-8")
        return self

    def standardize(self, image: Tensor) -> Tensor:
        """(C, \\*spatial) -> (x - mean) / std."""
        mean, std = self._like(image)
        return (image - mean) / std

    def restore(self, image: Tensor) -> Tensor:
        """(C, \\*spatial) -> x std + mean."""
        mean, std = self._like(image)
        return image * std + mean

    def _like(self, image: Tensor) -> tuple[Tensor, Tensor]:
        if image.shape[0] != len(self.mean):
            raise ValueError(
                f"TensorStatistics: an image must have {len(self.mean)} channels as these statistics, got "
                f"{image.shape[0]}. Take those of such images."
            )
        shape = (-1, *(1,) * (image.ndim - 1))
        return self.mean.to(image).view(shape), self.std.to(image).view(shape)


def _plain(image: Tensor) -> Tensor:
    return image.as_subclass(Tensor)
