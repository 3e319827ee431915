"""The invertible recurrent inference machine (i-RIM): reconstruct accelerated MRI at any depth in one layer's memory.

Putzky and Welling, Invert to Learn to Invert, NeurIPS 2019 (arXiv 1911.10914), eq. 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monai_invertible.autograd import InvertibleModule, InvertibleSequential
from monai_invertible.networks.blocks.gated_residual_block import GatedResidualBlock
from monai_invertible.networks.layers.gradient_update import GradientUpdate
from monai_invertible.networks.layers.layerwise import check_branch, layerwise_branch
from monai_invertible.networks.layers.orthogonal_coupling import OrthogonalCoupling
from monai_invertible.networks.scripting import ScriptedByTrace
from monai_invertible.operators import FourierSampling, prepare_measurement

__all__ = ["InvertibleRIM"]


class InvertibleRIM(ScriptedByTrace):
    r"""Reconstruct an image from under-sampled k-space by T invertible inference steps, each with its own weights:

    .. math:: s' = s_t + [\nabla D(\eta_t); 0], \qquad (\eta_{t+1}, s_{t+1}) = h_t(\eta_t, s'), \qquad \eta_0 = s_0 = 0

    :math:`\eta` is the image, s the memory, together a state of C channels; :math:`h_t` is a chain of
    :class:`~monai_invertible.networks.layers.OrthogonalCoupling`. All steps are one :class:`InvertibleSequential`:
    training keeps its output only, and recomputes each branch once. The error of the inversion does not grow
    (orthogonal bases, additive updates).

    Differences from the paper's published code: the gradient is taken once per step before :math:`h_t`, as in the paper
    (the code takes one more); the inverse runs the steps in reverse order (the code's does not); the data are scaled by
    the weighted mean magnitude of the zero-filled image (``kspace_scale``), and the result is scaled back.

    Args:
        spatial_dims: 2 for slices, 3 for volumes.
        steps: T.
        channels: C of the state, image included.
        hidden_channels: hidden width k of each coupling's branch; a number serves all.
        downsample: down-sampling factor d of each coupling's branch; its length is the number of couplings in a step.
            In 3D slices are not down-sampled: d means (1, d, d).
        reflections: Householder reflections of each basis.
        multiplicity: how many complex images the state estimates at a time; the result is their mean.
        initial: the estimate to start from: ``"zeros"`` as in the paper, or ``"zero_filled"``, the inverse Fourier
            transform of the data, as in the authors' challenge code; a short training gains most from it.
        fft_dims: trailing spatial dimensions that are Fourier-encoded.
        branch: of the couplings; "convolution" for the paper's gated residual block, or "layerwise" for a
            :class:`~monai_invertible.networks.layers.LayerwiseBranch` at full resolution; ``hidden_channels`` and
            ``downsample`` then only count the couplings, and ``channels`` must be even.
        backprop: ``"invert"``, ``"checkpoint"`` or ``"store"``.

    Shapes: k-space ``(B, coils, *spatial, 2)``, zero where not sampled, to a complex image ``(B, 2, *spatial)``. Sizes
    are free from the largest ``downsample`` up.

    Raises:
        ValueError: not as many hidden widths as factors; an unknown ``initial``; k-space, mask or sensitivities of
            wrong shapes.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        steps: int = 8,
        *,
        channels: int = 64,
        hidden_channels: int | Sequence[int] = 64,
        downsample: Sequence[int] = (1, 1, 2, 4, 8, 8, 4, 2, 1, 1),
        reflections: int = 3,
        multiplicity: int = 1,
        initial: str = "zeros",
        fft_dims: int = 2,
        branch: str = "convolution",
        backprop: str = "invert",
    ) -> None:
        super().__init__()
        widths = [hidden_channels] * len(downsample) if isinstance(hidden_channels, int) else list(hidden_channels)
        if len(widths) != len(downsample):
            raise ValueError(
                f"InvertibleRIM: hidden_channels and downsample describe the couplings of a step, got {len(widths)} "
                f"and {len(downsample)} entries. Give both the same length."
            )
        if initial not in ("zeros", "zero_filled"):
            raise ValueError(f'InvertibleRIM: initial must be "zeros" or "zero_filled", got {initial!r}. Choose one.')
        check_branch("InvertibleRIM", branch)
        self.initial = initial
        self.spatial_dims = spatial_dims
        self.channels = channels
        self.image_channels = 2 * multiplicity
        self.operator = FourierSampling(fft_dims)
        left = channels // 2
        layers: list[InvertibleModule] = []
        for _ in range(steps):
            layers.append(GradientUpdate(self.operator, channels, image_channels=self.image_channels))
            for width, d in zip(widths, downsample, strict=True):
                if branch == "layerwise":
                    g: nn.Module = layerwise_branch(
                        "InvertibleRIM", spatial_dims, left, channels - left, backprop=backprop
                    )
                else:
                    factors = (1,) * (spatial_dims - 2) + (d, d)
                    g = GatedResidualBlock(spatial_dims, left, channels - left, width, downsample=factors)
                layers.append(OrthogonalCoupling(channels, g, reflections=reflections, split=(left, channels - left)))
        self.chain = InvertibleSequential(*layers, backprop=backprop)

    def forward(self, kspace: Tensor, mask: Tensor | None = None, sensitivities: Tensor | None = None) -> Tensor:
        """Reconstruct.

        Args:
            kspace: ``(B, coils, *spatial, 2)``, zero where not sampled, in any unit.
            mask: 1 where sampled, broadcastable to k-space with a batch dimension, such as ``(B, 1, 1, W, 1)``; None
                for the columns that are not zero.
            sensitivities: coil sensitivities ``(B, coils, *spatial, 2)``; None for a single coil.
        """
        zero_filled, mask, scale = prepare_measurement(self.operator, kspace, mask, sensitivities)
        context: dict[str, Any] = {"zero_filled": zero_filled, "mask": mask}
        if sensitivities is not None:
            context["sensitivities"] = sensitivities
        b, _, *spatial = zero_filled.shape
        state = zero_filled.new_zeros(b, self.channels, *spatial)
        if self.initial == "zero_filled":
            images = [zero_filled] * (self.image_channels // 2)
            state = torch.cat([*images, state[:, self.image_channels :]], dim=1)
        state = self.chain(state, **context)
        return state[:, : self.image_channels].unflatten(1, (-1, 2)).mean(1) * scale

    def example_input(self) -> Tensor:
        """A small measurement, on the network's device."""
        device = next(self.parameters()).device
        return torch.randn(1, 1, *(8,) * (self.spatial_dims - 2), 64, 64, 2, device=device)
