"""Chains of layer-wise invertible layers, and their use as a branch of a coupling: the hybrid.

Hascoet et al., Layer-Wise Invertibility for Extreme Memory Cost Reduction of CNN Training, 2019, arXiv 1910.11127,
sections 3 and 4.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from monai_invertible.autograd.module import InvertibleModule, as_tuple
from monai_invertible.autograd.sequential import InvertibleSequential
from monai_invertible.networks.layers.invertible_batch_norm import InvertibleBatchNorm
from monai_invertible.networks.layers.invertible_convolution import InvertibleConvolution
from monai_invertible.networks.layers.invertible_leaky_relu import InvertibleLeakyReLU

__all__ = ["LayerwiseBranch", "check_branch", "layerwise_branch", "layerwise_unit"]


def layerwise_unit(
    spatial_dims: int, channels: int, *, negative_slope: float = 0.2, invertible_eps: float = 0.1
) -> list[InvertibleModule]:
    """Convolution, batch normalisation, activation, each invertible."""
    return [
        InvertibleConvolution(spatial_dims, channels),
        InvertibleBatchNorm(channels, invertible_eps=invertible_eps),
        InvertibleLeakyReLU(negative_slope),
    ]


class LayerwiseBranch(nn.Module):
    """Units of convolution, batch normalisation and activation as one chain of invertible layers.

    As a branch of a coupling it is the hybrid of the paper: the coupling's inverse is stable, whatever its branches
    are, and gives each branch its input exactly; within the branch, layers are inverted one by one, so that the
    recomputation of a branch, the peak of a reversible network's memory, keeps one activation instead of all. The error
    of the layers' inverses does not reach beyond the branch.

    Args:
        spatial_dims: 1, 2 or 3.
        channels: of input and output, at least 2.
        units: how many.
        negative_slope, invertible_eps: of the layers.
        embedding_channels: E of an embedding that shifts the channels of the input, of time, say; None for no such.
        backprop: "invert", "checkpoint" or "store".

    Context: ``embedding`` ``(B, E)``, or ``(1, E)`` for all, if there is one.

    Shapes: ``(B, channels, *spatial)`` to the same.
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        units: int = 2,
        *,
        negative_slope: float = 0.2,
        invertible_eps: float = 0.1,
        embedding_channels: int | None = None,
        backprop: str = "invert",
    ) -> None:
        super().__init__()
        self.shift = None if embedding_channels is None else nn.Linear(embedding_channels, channels)
        layers: list[InvertibleModule] = []
        for _ in range(units):
            layers += layerwise_unit(
                spatial_dims, channels, negative_slope=negative_slope, invertible_eps=invertible_eps
            )
        self.chain = InvertibleSequential(*layers, backprop=backprop)

    def layers_of_units(self) -> list[tuple[InvertibleModule, InvertibleModule, InvertibleModule]]:
        """Convolution, normalisation, activation of each unit."""
        layers = list(self.chain)
        return list(zip(layers[::3], layers[1::3], layers[2::3], strict=True))

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """The last tensor of the chain; the others are statistics."""
        if self.shift is not None:
            shift = self.shift(embedding)
            x = x + shift.view(*shift.shape, *(1,) * (x.ndim - 2))
        return as_tuple(self.chain(x))[-1]


def layerwise_branch(who: str, spatial_dims: int, source: int, target: int, **options: Any) -> LayerwiseBranch:
    """The branch of a coupling of ``who``, from one half of its channels to the other, with two units.

    Raises:
        ValueError: two halves of different sizes, or of one channel.
    """
    if source != target or source < 2:
        raise ValueError(
            f'{who}: branch="layerwise" keeps its channels, so both halves of a coupling must have the same number, at '
            f"least 2, got {source} and {target}. Use widths that are even and at least 4."
        )
    return LayerwiseBranch(spatial_dims, source, 2, **options)


def check_branch(who: str, branch: str) -> None:
    """Raise ValueError unless the branch is one that the networks offer."""
    if branch not in ("convolution", "layerwise"):
        raise ValueError(f'{who}: branch must be "convolution" or "layerwise", got {branch!r}. Choose one.')
