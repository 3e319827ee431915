"""What super-resolution must beat: interpolation between the voxels of low resolution, as a pair of generators."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from monai_invertible.networks.blocks.generator_pair import GeneratorPair

__all__ = ["InterpolationGenerators"]

_MODES = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}


class InterpolationGenerators(GeneratorPair):
    """F interpolates between the centres of blocks, G replaces every block by its mean. No parameters.

    X is of low resolution, each value repeated on a block of the grid of Y. F takes every block's value once and
    interpolates along one axis after the other: "nearest" gives X as it is; "linear"; "cubic" is Keys' with a = -1/2,
    exact for parabolas. Blocks begin at the first voxel: give whole images, or windows that begin at multiples of
    ``factor``.

    Args:
        mode: "nearest", "linear" or "cubic".
        factor: voxels of a block along each axis.

    Shapes: ``(B, C, *spatial)`` to the same; the last block along an axis may be incomplete.

    Raises:
        ValueError: an unknown mode, or a factor below 1.
    """

    def __init__(self, mode: str = "cubic", factor: int = 2) -> None:
        super().__init__()
        if mode not in _MODES or factor < 1:
            raise ValueError(
                f"InterpolationGenerators: mode must be one of {', '.join(_MODES)} and factor at least 1, got "
                f'{mode!r} and {factor}. Use mode="cubic", factor=2.'
            )
        self.mode = mode
        self.factor = factor

    def translate(self, x: Tensor) -> Tensor:
        for axis, size in list(enumerate(x.shape))[2:]:
            blocks = x.movedim(axis, -1)[..., :: self.factor]
            x = (blocks @ self._weights(blocks).T)[..., :size].movedim(-1, axis)
        return x

    def translate_back(self, y: Tensor) -> Tensor:
        for axis, size in list(enumerate(y.shape))[2:]:
            voxels = y.movedim(axis, -1)
            blocks = F.avg_pool1d(voxels.flatten(0, -2), self.factor, ceil_mode=True).unflatten(0, voxels.shape[:-1])
            y = blocks.repeat_interleave(self.factor, dim=-1)[..., :size].movedim(-1, axis)
        return y

    def _weights(self, blocks: Tensor) -> Tensor:
        """(blocks * factor, blocks): what each voxel takes of each block."""
        count = blocks.shape[-1]
        options = {} if self.mode == "nearest" else {"align_corners": False, "antialias": self.mode == "cubic"}
        one = torch.eye(count, dtype=torch.float64, device=blocks.device)[None, None]
        return F.interpolate(one, (count * self.factor, count), mode=_MODES[self.mode], **options)[0, 0].to(blocks)

    def example_input(self) -> Tensor:
        """A small tensor image."""
        return torch.zeros(1, 6, 8, 8, 8)
