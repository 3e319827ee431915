"""The ends of the invertible diffusion U-Net, which are not invertible.

Jain and Teli, Bringing together invertible UNets with invertible attention modules for memory-efficient diffusion
models, 2025, arXiv 2504.10883: without them, the authors say, the model collapses.
"""

from __future__ import annotations

from typing import Any

from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from monai_invertible.autograd.backprop import BackpropSwitch
from monai_invertible.autograd.checkpointing import run_checkpointed
from monai_invertible.networks.blocks.time_shifted_convolution import group_norm

__all__ = ["Bookends"]


class Bookends(BackpropSwitch):
    """The two ends that are not invertible: to half the resolution and more channels, and back.

    Args:
        spatial_dims, in_channels, out_channels: of the images.
        parts: channels of the two tensors between the ends.
        stride: of the ends.
        norm_num_groups: of the group norms.
        backprop: evaluated again in backward, unless "store".

    Shapes: :meth:`lift` ``(B, in_channels, *spatial)`` to two tensors ``(B, parts[i], *spatial / stride)``,
    :meth:`project` these to ``(B, out_channels, *spatial)``; ``stride`` divides the sizes.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        parts: tuple[int, int],
        stride: tuple[int, ...],
        *,
        norm_num_groups: int = 8,
        backprop: str = "invert",
    ) -> None:
        super().__init__()
        self.backprop = backprop
        conv, transposed = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]
        hidden = max(sum(parts) // 2, 1)
        self.first = nn.Sequential(
            conv(in_channels, hidden, kernel_size=3, stride=stride, padding=1),
            group_norm(norm_num_groups, hidden),
            nn.SiLU(),
        )
        self.widen = nn.ModuleList(conv(hidden, part, kernel_size=3, padding=1) for part in parts)
        self.narrow = nn.ModuleList(
            nn.Sequential(group_norm(norm_num_groups, part), nn.SiLU(), conv(part, hidden, kernel_size=3, padding=1))
            for part in parts
        )
        kernel = tuple(3 if s == 1 else 2 * s for s in stride)
        padding = tuple((k - s + 1) // 2 for k, s in zip(kernel, stride, strict=True))
        odd = tuple(2 * p + s - k for k, p, s in zip(kernel, padding, stride, strict=True))
        self.last = nn.Sequential(
            group_norm(norm_num_groups, hidden),
            nn.SiLU(),
            transposed(hidden, out_channels, kernel_size=kernel, stride=stride, padding=padding, output_padding=odd),
        )
        for parameter in self.last[-1].parameters():
            nn.init.zeros_(parameter)

    def lift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The state, two tensors, of an image."""
        return self._run(self._lift, x)

    def project(self, state: tuple[Tensor, Tensor]) -> Tensor:
        """The image of a state."""
        return self._run(self._project, *state)

    def _lift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(x)
        first, second = (conv(x) for conv in self.widen)
        return first, second

    def _project(self, *state: Tensor) -> Tensor:
        return self.last(sum(norm(part) for norm, part in zip(self.narrow, state, strict=True)))

    def _run(self, function: Any, *inputs: Tensor) -> Any:
        return function(*inputs) if self.backprop == "store" else run_checkpointed(self, *inputs, function=function)
