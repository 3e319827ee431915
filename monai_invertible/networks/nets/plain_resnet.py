"""The residual network that the reversible classifiers are compared with. All its activations are kept.

He et al., Deep Residual Learning, 2016, in the shape of Hascoet et al., Layer-Wise Invertibility for Extreme Memory
Cost Reduction of CNN Training, 2019, arXiv 1910.11127, table 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from monai_invertible.networks.blocks.convolution_branch import ConvolutionBranch
from monai_invertible.networks.blocks.staged_classifier import StagedClassifier

__all__ = ["PlainResNet"]


class PlainResNet(StagedClassifier):
    """A classifier of stages of residual blocks with max pooling and a convolution to the next width between them.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: of the images.
        num_classes: of the logits.
        channels: widths of the stages.
        blocks: residual blocks of each stage. The first stage has one convolution a block, the others two.
        negative_slope: of the activations.

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
        channels: Sequence[int] = (32, 64, 128, 256),
        blocks: Sequence[int] = (1, 1, 1, 2),
        negative_slope: float = 0.2,
    ) -> None:
        def stage(width: int, count: int, units: int) -> nn.Module:
            return nn.Sequential(
                *(
                    _Residual(ConvolutionBranch(spatial_dims, width, units, negative_slope=negative_slope))
                    for _ in range(count)
                )
            )

        super().__init__(spatial_dims, in_channels, num_classes, channels, blocks, stage, negative_slope=negative_slope)


class _Residual(nn.Module):
    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)
