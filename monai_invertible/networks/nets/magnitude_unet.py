"""fastMRI's U-Net on magnitude images, with the call signature of the other reconstruction networks.

Zbontar et al., "fastMRI: An Open Dataset and Benchmarks for Accelerated MRI", 2018: the baseline of the i-RIM paper.
"""

from __future__ import annotations

import torch
from monai.utils.module import optional_import
from torch.nn import functional as F

from monai_invertible.operators import FourierSampling, magnitude, prepare_measurement

__all__ = ["MagnitudeUNet"]


class MagnitudeUNet(torch.nn.Module):
    """Zero-filled magnitude image -> normalise -> ``fastmri.models.Unet`` -> undo the normalisation.

    Each slice is normalised to mean 0 and standard deviation 1 and clamped to +-6, as in fastMRI's data transform.
    The U-Net is that of the package ``fastmri``, layer by layer: 7.756 million parameters with 32 channels.

    fastMRI's U-Net takes any size that leaves more than one pixel at its bottom, and repairs odd sizes on the way up,
    by a test that ``torch.export`` and fake tensors cannot follow. Here a size is padded at the end, by replication,
    to a multiple of 2^num_pool_layers (and to twice that at least, for the instance normalisation at the bottom), and
    the output is cropped: the same network for sizes divisible by it, such as the 320 x 320 of fastMRI, and every size
    from 2^num_pool_layers works.

    Args:
        channels: of the first convolution.
        num_pool_layers: times the image is halved.
        drop_prob: dropout probability.

    Shapes:
        kspace: (B, coils, H, W, 2), zero where not sampled. mask: broadcasts to k-space, None: inferred from the
        zeros. sensitivities: (B, coils, H, W, 2), None for one coil. Output: magnitude image (B, 1, H, W) in the unit
        of k-space; like fastMRI's, it may be slightly negative.

    Raises:
        ValueError: k-space of a volume, or smaller than 2^num_pool_layers; several coils without sensitivities.
    """

    def __init__(self, channels: int = 32, *, num_pool_layers: int = 4, drop_prob: float = 0.0) -> None:
        super().__init__()
        unet, _ = optional_import("fastmri.models", name="Unet")  # imported here: fastmri takes seconds to import
        self.unet = unet(1, 1, chans=channels, num_pool_layers=num_pool_layers, drop_prob=drop_prob)
        self.operator = FourierSampling()
        self.divisor = 2**num_pool_layers

    def forward(
        self,
        kspace: torch.Tensor,
        mask: torch.Tensor | None = None,
        sensitivities: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Reconstruct the magnitude image."""
        if kspace.ndim != 5:
            raise ValueError(
                f"MagnitudeUNet: k-space must be 2D, (B, coils, H, W, 2), got shape {tuple(kspace.shape)}. "
                "Give a volume slice by slice."
            )
        zero_filled, _, scale = prepare_measurement(self.operator, kspace, mask, sensitivities)
        image = magnitude(zero_filled)
        mean = image.mean(dim=(1, 2, 3), keepdim=True)
        std = image.std(dim=(1, 2, 3), keepdim=True) + 1e-11
        x = ((image - mean) / std).clamp(-6, 6)

        height, width = x.shape[-2:]
        if min(height, width) < self.divisor:
            raise ValueError(
                f"MagnitudeUNet: every size must be at least 2^num_pool_layers = {self.divisor}, got "
                f"{(height, width)}. Use fewer pool layers."
            )
        bottom, right = self._missing(height), self._missing(width)
        x = self._unet(F.pad(x, (0, right, 0, bottom), mode="replicate"))
        x = F.pad(x, (0, -right, 0, -bottom))  # crop; slicing would tie an exported graph to its size
        return (x * std + mean) * scale

    def _unet(self, x: torch.Tensor) -> torch.Tensor:
        """``self.unet(x)`` for sizes that need no repair."""
        skips = []
        for block in self.unet.down_sample_layers:
            x = block(x)
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        x = self.unet.conv(x)
        for up, block in zip(self.unet.up_transpose_conv, self.unet.up_conv, strict=True):
            x = block(torch.cat([up(x), skips.pop()], dim=1))
        return x

    def _missing(self, size: int) -> int:
        whole = (size + self.divisor - 1) // self.divisor * self.divisor  # ONNX rounds -(-a // b) the other way
        return max(whole, 2 * self.divisor) - size
