"""What reconstruction networks share: which k-space locations were sampled, and at which scale the data are."""

from __future__ import annotations

import torch

from monai_invertible.operators.fourier_sampling import FourierSampling

__all__ = ["kspace_scale", "magnitude", "prepare_measurement", "sampling_mask"]


def magnitude(image: torch.Tensor) -> torch.Tensor:
    """The magnitude (B, m, \\*spatial) of complex images (B, 2m, \\*spatial) with real and imaginary parts as channels.

    An image with one channel (B, 1, \\*spatial) is a magnitude already and is returned as it is. The derivative at zero
    is zero (that of a plain square root is infinite).

    Raises:
        ValueError: another odd number of channels.
    """
    if image.shape[1] == 1:
        return image
    if image.shape[1] % 2:
        raise ValueError(
            "magnitude: an image must be complex (B, 2m, *spatial), in (real, imaginary) pairs of channels, or a "
            f"magnitude (B, 1, *spatial), got {tuple(image.shape)}. Put the batch first, then the channels."
        )
    return torch.linalg.vector_norm(image.unflatten(1, (-1, 2)), dim=2)


def sampling_mask(kspace: torch.Tensor, columns: bool = True) -> torch.Tensor:
    """The sampling mask that k-space itself shows: 1 where it is not zero, in its dtype.

    A measured value is never exactly zero in all coils and rows, except in zero-padded parts of k-space, which count
    as not sampled.

    Args:
        kspace: (B, coils, \\*spatial, 2), zero where not sampled.
        columns: if True, a column (a place in the last spatial dimension) is sampled if anything in it is nonzero:
            mask (B, 1, .., 1, W, 1). If False, a location is sampled if some coil is nonzero there: mask
            (B, 1, \\*spatial, 1).
    """
    reduced = [1, *range(2, kspace.ndim - 2), kspace.ndim - 1] if columns else [1, kspace.ndim - 1]
    return (kspace != 0).any(dim=reduced, keepdim=True).to(kspace.dtype)


def kspace_scale(zero_filled: torch.Tensor) -> torch.Tensor:
    """The scale of each sample, (B, 1, .., 1): the mean magnitude of its zero-filled image, weighted by the magnitude.

    sum |z|^2 / sum |z|. Dividing by it makes a network independent of the unit of the k-space, and of how much air
    surrounds the body: a crop has the scale of the whole image, which a standard deviation (the authors' choice, over
    a central crop) has not. It is never below the smallest normal number, so an empty measurement stays zero
    (0 / scale = 0, output x scale = 0) and gives no NaN.
    """
    z = magnitude(zero_filled).flatten(1)
    tiny = torch.finfo(z.dtype).tiny
    scale = z.square().sum(1) / z.sum(1).clamp_min(tiny)
    return scale.clamp_min(tiny).view(-1, *[1] * (zero_filled.ndim - 1))


def prepare_measurement(
    operator: FourierSampling,
    kspace: torch.Tensor,
    mask: torch.Tensor | None = None,
    sensitivities: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a reconstruction network starts from: ``(zero_filled / scale, mask, scale)``.

    Args:
        operator: the forward operator.
        kspace: (B, coils, \\*spatial, 2), zero where not sampled.
        mask: see :class:`FourierSampling`; None infers it by :func:`sampling_mask`.
        sensitivities: (B, coils, \\*spatial, 2); may be None for a single coil.

    Raises:
        ValueError: k-space that is not (B, coils, \\*spatial, 2), or several coils without sensitivities.
    """
    if kspace.ndim < 4 or kspace.shape[-1] != 2:
        raise ValueError(
            f"prepare_measurement: k-space must be (B, coils, *spatial, 2), got shape {tuple(kspace.shape)}. "
            "Use torch.view_as_real on complex k-space."
        )
    if sensitivities is None and kspace.shape[1] != 1:
        raise ValueError(
            f"prepare_measurement: {kspace.shape[1]} coils need sensitivities, got None. "
            "Give sensitivity maps (B, coils, *spatial, 2), or combine the coils first."
        )
    if mask is None:
        mask = sampling_mask(kspace)
    zero_filled = operator.adjoint(kspace, mask, sensitivities)
    scale = kspace_scale(zero_filled)
    return zero_filled / scale, mask, scale
