"""What all our U-Nets share around their levels: images of any size, the VAE branch, one tensor in evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from monai_invertible.networks.blocks.padding import missing_padding
from monai_invertible.networks.blocks.variational_branch import VariationalBranch
from monai_invertible.networks.scripting import ScriptedByTrace

__all__ = ["SegmentationUNet"]


class SegmentationUNet(ScriptedByTrace):
    """Pad, segment, crop; in training with the terms of the VAE branch, if there is one. A subclass defines
    :meth:`segment`.

    Sizes that the strides do not divide are padded at the end by repeating the border, and the output is cropped.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of the image.
        channels: widths of the levels.
        strides: between the levels; a number or one number per dimension each.
        vae_size: spatial size of the training patches: attaches a :class:`VariationalBranch`. None: no branch.
        act, norm, backprop: of that branch.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        channels: Sequence[int],
        strides: Sequence[Sequence[int] | int],
        *,
        vae_size: Sequence[int] | None,
        act: tuple | str | None,
        norm: tuple | str | None,
        backprop: str,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.channels = tuple(channels)
        self.strides = stride_tuples(type(self).__name__, spatial_dims, channels, strides)
        self.divisor = tuple(prod(step[dim] for step in self.strides) for dim in range(spatial_dims))
        self.vae = None
        if vae_size is not None:
            if len(vae_size) != spatial_dims or all(n <= d for n, d in zip(vae_size, self.divisor, strict=True)):
                raise ValueError(
                    f"{type(self).__name__}: vae_size must be {spatial_dims} numbers, one of them larger than the "
                    f"product of the strides {self.divisor}, got {tuple(vae_size)}. Use the training patches' size."
                )
            self.vae = VariationalBranch(
                spatial_dims, in_channels, vae_size, channels, self.strides, act=act, norm=norm, backprop=backprop
            )

    def segment(self, image: Tensor, with_bottleneck: bool) -> tuple[Tensor, Tensor | None]:
        """Logits of an image whose size the strides divide, and the deepest level's features if asked for."""
        raise NotImplementedError(f"{type(self).__name__}: define segment(image, with_bottleneck).")

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Logits of the image; in training with a VAE branch ``(logits, l2, kl)``, the latter two of shape ``(B,)``."""
        regularized = self.vae is not None and self.training
        missing = missing_padding(self, x, self.in_channels, self.divisor)
        logits, bottleneck = self.segment(F.pad(x, missing, mode="replicate") if missing else x, regularized)
        if missing:
            logits = F.pad(logits, [-n for n in missing])  # slicing would tie an exported graph to its size
        if self.vae is None or bottleneck is None:
            return logits
        return logits, *self.vae(bottleneck, x)

    def example_input(self) -> Tensor:
        """A small image, on the network's device."""
        device = next(self.parameters()).device
        return torch.rand(1, self.in_channels, *(2 * d for d in self.divisor), device=device)


def stride_tuples(
    who: str, spatial_dims: int, channels: Sequence[int], strides: Sequence[Sequence[int] | int]
) -> tuple[tuple[int, ...], ...]:
    """The strides with one number per dimension each, checked."""
    if spatial_dims not in (1, 2, 3):
        raise ValueError(f"{who}: spatial_dims must be 1, 2 or 3, got {spatial_dims}. Use 3 for volumes.")
    tuples = tuple(tuple(s) if isinstance(s, Sequence) else (s,) * spatial_dims for s in strides)
    if min(channels, default=1) < 1 or len(channels) < 2 or len(tuples) != len(channels) - 1:
        raise ValueError(
            f"{who}: strides must be one fewer than channels, which must be at least two positive numbers, got "
            f"{tuple(strides)} and {tuple(channels)}. Use for example channels=(16, 32, 64), strides=(2, 2)."
        )
    if any(len(s) != spatial_dims or any(not isinstance(n, int) or n < 1 for n in s) for s in tuples):
        raise ValueError(
            f"{who}: a stride must be a positive whole number, or {spatial_dims} of them, got {tuple(strides)}. Use "
            f"for example strides={(2,) * len(tuples)}."
        )
    return tuples
