"""The ResNet generator of CycleGAN, one direction: the baseline of RevGAN's 2D generators.

Johnson et al. 2016; Zhu et al. 2017, arXiv 1703.10593, appendix 7.2. RevGAN's "Pix2pix" is this network too, trained
once for each direction, not pix2pix's U-Net.
"""

from __future__ import annotations

from monai.networks.layers.simplelayers import SkipConnection
from monai.networks.utils import normal_init
from torch import Tensor, nn

from monai_invertible.networks.blocks.residual_branch import ResidualBranch
from monai_invertible.networks.blocks.translation_coder import TranslationDecoder, TranslationEncoder
from monai_invertible.networks.scripting import ScriptedByTrace

__all__ = ["ResNetGenerator"]


class ResNetGenerator(ScriptedByTrace):
    """Encoder, ``depth`` residual blocks on 4 n channels, decoder.

    Args:
        spatial_dims: 2 (1 and 3 work too).
        in_channels: channels of the input image.
        out_channels: channels of the output image.
        channels: n, the width of the first convolution.
        depth: residual blocks.

    Shapes: ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``, sizes multiples of 4 from 8; values in
    [-1, 1].

    Raises:
        ValueError: other sizes.
    """

    def __init__(
        self, spatial_dims: int = 2, in_channels: int = 3, out_channels: int = 3, channels: int = 64, depth: int = 9
    ) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        blocks = [SkipConnection(ResidualBranch(spatial_dims, 4 * channels), mode="add") for _ in range(depth)]
        self.layers = nn.Sequential(
            TranslationEncoder(spatial_dims, in_channels, channels),
            *blocks,
            TranslationDecoder(spatial_dims, out_channels, channels),
        )
        self.apply(normal_init)  # N(0, 0.02), biases 0

    def forward(self, x: Tensor) -> Tensor:
        """The translated image."""
        return self.layers(x)

    def example_input(self) -> Tensor:
        """A small image, on the network's device."""
        return next(self.parameters()).new_zeros(1, self.in_channels, *(16,) * self.spatial_dims)
