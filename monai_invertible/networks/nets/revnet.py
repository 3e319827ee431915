"""RevNet, the reversible residual network: chains of couplings with ordinary pooling between them.

Gomez, Ren, Urtasun and Grosse, The Reversible Residual Network, NIPS 2017, arXiv 1707.04585, in the variant of Hascoet
et al., Layer-Wise Invertibility for Extreme Memory Cost Reduction of CNN Training, 2019, arXiv 1910.11127, table 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from monai_invertible.autograd.sequential import InvertibleSequential
from monai_invertible.networks.blocks.convolution_branch import ConvolutionBranch
from monai_invertible.networks.blocks.staged_classifier import StagedClassifier
from monai_invertible.networks.layers.coupling import AdditiveCoupling

__all__ = ["RevNet"]


class RevNet(StagedClassifier):
    """A classifier of four (or other) stages of couplings; max pooling and the convolutions between the stages are not
    invertible, but checkpointed: evaluated again in backward from the output of the stage before, which is kept.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: of the images.
        num_classes: of the logits.
        channels: widths of the stages, even.
        blocks: couplings of each stage. The first stage has one convolution a branch, the others two.
        negative_slope: of the activations.
        backprop: "invert", "checkpoint" or "store".

    Shapes: ``(B, in_channels, *spatial)`` to ``(B, num_classes)``.

    Raises:
        ValueError: not as many stages as widths.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        channels: Sequence[int] = (40, 80, 256, 320),
        blocks: Sequence[int] = (1, 2, 2, 1),
        negative_slope: float = 0.2,
        backprop: str = "invert",
    ) -> None:
        def stage(width: int, count: int, units: int) -> nn.Module:
            couplings = [
                AdditiveCoupling(
                    ConvolutionBranch(spatial_dims, width // 2, units, negative_slope=negative_slope),
                    ConvolutionBranch(spatial_dims, width // 2, units, negative_slope=negative_slope),
                )
                for _ in range(count)
            ]
            return InvertibleSequential(*couplings, backprop=backprop)

        super().__init__(
            spatial_dims,
            in_channels,
            num_classes,
            channels,
            blocks,
            stage,
            negative_slope=negative_slope,
            backprop=backprop,
        )
