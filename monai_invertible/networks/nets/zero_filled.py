"""The image that under-sampled k-space gives without any reconstruction: the floor of every comparison."""

from __future__ import annotations

from torch import Tensor, nn

from monai_invertible.operators import FourierSampling, prepare_measurement

__all__ = ["ZeroFilled"]


class ZeroFilled(nn.Module):
    """``S^H F^H P d``: the inverse Fourier transform of k-space that is zero where it was not sampled. No parameters.

    Args:
        fft_dims: trailing spatial dimensions that are Fourier-encoded.

    Shapes: as :class:`~monai_invertible.networks.InvertibleRIM`, k-space ``(B, coils, *spatial, 2)`` to a complex
    image ``(B, 2, *spatial)`` in the unit of k-space.

    Raises:
        ValueError: k-space, mask or sensitivities of wrong shapes.
    """

    def __init__(self, fft_dims: int = 2) -> None:
        super().__init__()
        self.operator = FourierSampling(fft_dims)

    def forward(self, kspace: Tensor, mask: Tensor | None = None, sensitivities: Tensor | None = None) -> Tensor:
        """The zero-filled image."""
        zero_filled, _, scale = prepare_measurement(self.operator, kspace, mask, sensitivities)
        return zero_filled * scale
