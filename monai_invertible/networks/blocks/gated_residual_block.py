"""The branch G of the i-RIM's invertible layer: a bottleneck of three convolutions and a gated linear unit.

Putzky and Welling, "Invert to Learn to Invert", NeurIPS 2019, section 2.2 and figure 2B. The block itself is not
invertible and need not be.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv
from monai.utils.misc import ensure_tuple_rep
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

__all__ = ["GatedResidualBlock"]


class GatedResidualBlock(torch.nn.Module):
    """G(x) = a * sigmoid(b) with (a, b) = up(relu(middle(relu(down(x))))).

    ``down``: convolution with kernel and stride d, to k channels. ``middle``: 3 x 3 (x 3) convolution, zero
    padding 1. ``up``: transposed convolution with kernel and stride d, to 2 ``out_channels``, without bias. All three
    are weight-normalised along dimension 0 (for the transposed convolution these are its input channels, as in the
    authors' code). The gate makes a special initialisation unnecessary: PyTorch's default is used.

    A size that d does not divide is allowed: the rows that ``down`` does not reach are zero in the output, as in the
    authors' code, where the transposed convolution is asked for the size of the input.

    Args:
        spatial_dims: 2 or 3 (1 works too).
        in_channels: channels of the input.
        out_channels: channels of the output.
        channels: hidden width k.
        downsample: d, one number or one per dimension. The authors never downsample the slices of a volume: use
            (1, d, d) in 3D.
        gate: if False, the output is ``a`` alone: the output head of the authors' challenge network.

    Shapes:
        (B, in_channels, \\*spatial) -> (B, out_channels, \\*spatial), every size at least d.

    Raises:
        ValueError: a size below d.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: int = 64,
        *,
        downsample: int | Sequence[int] = 1,
        gate: bool = True,
    ) -> None:
        super().__init__()
        self.downsample = ensure_tuple_rep(downsample, spatial_dims)
        self.gate = gate
        conv, transposed = Conv[Conv.CONV, spatial_dims], Conv[Conv.CONVTRANS, spatial_dims]
        d = self.downsample
        self.down = weight_norm(conv(in_channels, channels, kernel_size=d, stride=d), dim=0)
        self.middle = weight_norm(conv(channels, channels, kernel_size=3, padding=1), dim=0)
        up_channels = 2 * out_channels if gate else out_channels
        self.up = weight_norm(transposed(channels, up_channels, kernel_size=d, stride=d, bias=False), dim=0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """G(x)."""
        size = x.shape[2:]
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]  # torch.jit has no __all__
        if not tracing and any(s < d for s, d in zip(size, self.downsample, strict=True)):
            raise ValueError(
                f"GatedResidualBlock: every size must be at least downsample={self.downsample}, got {tuple(size)}. "
                "Use a smaller downsample or pad the image."
            )
        y = self.up(F.relu(self.middle(F.relu(self.down(x)))))
        if self.gate:
            y = F.glu(y, dim=1)
        missing = [s - t for s, t in zip(size, y.shape[2:], strict=True)]
        # an exported graph always pads: it must not depend on the size it was recorded with
        if tracing or torch.compiler.is_exporting() or any(missing):
            y = F.pad(y, [p for m in reversed(missing) for p in (0, m)])
        return y
