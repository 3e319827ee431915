"""The MRI forward operator A = P F S: coil sensitivities, centred Fourier transform, sampling mask.

It is the physics of accelerated MRI, d = P F eta + n, of the (invertible) recurrent inference machine: Putzky and
Welling, "Invert to Learn to Invert", NeurIPS 2019, equation 17. The paper has one coil (S = 1); several coils follow
the SENSE model.
"""

from __future__ import annotations

import torch
from monai.apps.reconstruction.complex_utils import complex_conj_t, complex_mul_t
from monai.networks.blocks.fft_utils_t import fftn_centered_t, ifftn_centered_t

__all__ = ["FourierSampling"]


class FourierSampling(torch.nn.Module):
    """Measure an image (``forward``), go back (``adjoint``), and compare with the data (``data_gradient``).

    ``forward``: A x = P F S x. ``adjoint``: A^H d = S^H F^H P d. ``data_gradient``: A^H A x - A^H d, the gradient of
    0.5 |A x - d|^2 with respect to the real and imaginary part of x. As in the authors' code, it is not divided by
    the noise variance.

    F is centred (zero frequency in the middle) and orthonormal, so that k-space and image have the same norm and the
    same unit. The operator has no parameters, is differentiable in all its arguments, and its adjoint is exact:
    <A x, y> = <x, A^H y>. Half-precision inputs are converted to float32, also under autocast: there is no
    half-precision Fourier transform for every size.

    An image of 2m channels holds m complex images (real, imaginary, real, imaginary, ...), each of which is measured
    by all coils: the "multiplicity" of the authors' challenge networks. Its k-space has m x coils channels, the coils
    of the first image first.

    Args:
        fft_dims: how many spatial dimensions, counted from the last, are Fourier-transformed. The default 2 is a
            slice-wise acquisition: a volume (B, 2, D, H, W) is measured slice by slice. Use 3 for a 3D acquisition.

    Shapes:
        image, zero_filled: (B, 2m, \\*spatial). kspace: (B, m coils, \\*spatial, 2).
        mask: anything that broadcasts to k-space and has as many dimensions; 1 is measured, 0 is not. In 2D,
        (B, 1, 1, W, 1) is one mask of columns per sample and (1, 1, 1, W, 1) the same for all.
        sensitivities: (B, coils, \\*spatial, 2), normally with sum over coils of |S|^2 equal to 1.

    Raises:
        ValueError: an odd number of channels, a mask without the dimensions of k-space, or sensitivities of another
            number of coils.
    """

    def __init__(self, fft_dims: int = 2) -> None:
        super().__init__()
        if fft_dims not in (1, 2, 3):
            raise ValueError(f"FourierSampling: fft_dims must be 1, 2 or 3, got {fft_dims}. Use 2 for slice-wise data.")
        self.fft_dims = fft_dims

    def forward(
        self, image: torch.Tensor, mask: torch.Tensor, sensitivities: torch.Tensor | None = None
    ) -> torch.Tensor:
        """A x: the k-space (B, m coils, \\*spatial, 2) of an image (B, 2m, \\*spatial)."""
        if image.shape[1] % 2:
            raise ValueError(
                f"FourierSampling: an image has an even number of channels (real, imaginary), got {image.shape[1]}. "
                "Append a zero imaginary part to a real image."
            )
        x = _as_pairs(_as_float(image).unflatten(1, (-1, 2)).movedim(2, -1))  # (B, m, *spatial, 2)
        if sensitivities is not None:
            x = complex_mul_t(x.unsqueeze(2), _as_float(sensitivities).unsqueeze(1)).flatten(1, 2)
        kspace = fftn_centered_t(x, spatial_dims=self.fft_dims)
        return _masked(kspace, mask)

    def adjoint(
        self, kspace: torch.Tensor, mask: torch.Tensor, sensitivities: torch.Tensor | None = None
    ) -> torch.Tensor:
        """A^H d: the zero-filled image (B, 2m, \\*spatial) of k-space (B, m coils, \\*spatial, 2)."""
        x = ifftn_centered_t(_masked(_as_float(kspace), mask), spatial_dims=self.fft_dims)
        if sensitivities is not None:
            coils = sensitivities.shape[1]
            if x.shape[1] % coils:
                raise ValueError(
                    f"FourierSampling: k-space has {x.shape[1]} channels but sensitivities have {coils} coils. "
                    "Give one map per coil."
                )
            maps = complex_conj_t(_as_float(sensitivities)).unsqueeze(1)
            x = complex_mul_t(x.unflatten(1, (-1, coils)), maps).sum(2)
        return x.movedim(-1, 2).flatten(1, 2)

    def data_gradient(
        self,
        image: torch.Tensor,
        zero_filled: torch.Tensor,
        mask: torch.Tensor,
        sensitivities: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """A^H A x - A^H d, where ``zero_filled`` is A^H d; if it has 2 channels, it serves every complex image."""
        normal = self.adjoint(self(image, mask, sensitivities), mask, sensitivities)
        if zero_filled.shape[1] != image.shape[1]:
            zero_filled = torch.cat([zero_filled] * (image.shape[1] // zero_filled.shape[1]), dim=1)
        return normal - zero_filled

    def extra_repr(self) -> str:
        return f"fft_dims={self.fft_dims}"


def _as_float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _as_pairs(tensor: torch.Tensor) -> torch.Tensor:
    """As complex numbers lie in memory, which torch also asks of dimensions of size one."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _masked(kspace: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if mask.ndim != kspace.ndim:
        raise ValueError(
            f"FourierSampling: mask must have the {kspace.ndim} dimensions of k-space (B, coils, *spatial, 2) and "
            f"broadcast to it, got shape {mask.shape}. Use mask.reshape(B, 1, .., 1, W, 1) for a mask of columns."
        )
    return kspace * mask.to(kspace.dtype)
