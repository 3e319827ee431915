"""The branch of RevGAN's reversible residual blocks, which is also that of the ResNet generator's blocks.

Van der Ouderaa and Worrall, Reversible GANs for Memory-efficient Image-to-Image Translation, CVPR 2019, arXiv
1902.02729, section 4; after Johnson et al. 2016.
"""

from __future__ import annotations

from monai.networks.layers.factories import Conv
from monai.networks.layers.utils import get_norm_layer
from torch import nn

__all__ = ["ResidualBranch"]


class ResidualBranch(nn.Sequential):
    """``conv(relu(norm(conv(x))))``, with a norm at the end or with a last convolution that starts at zero.

    Args:
        spatial_dims: 1, 2 or 3.
        channels: of input and output.
        padding_mode: "reflect" (2D) or "replicate" (3D), as in the authors' code.
        norm: normalisation, as in MONAI's networks.
        zero_init: end with a convolution of zeros, so that the block is the identity at the start, instead of a norm.

    Shapes: ``(B, channels, *spatial)`` to the same; reflection needs sizes of at least 2.
    """

    def __init__(
        self,
        spatial_dims: int,
        channels: int,
        *,
        padding_mode: str = "reflect",
        norm: tuple | str = "instance",
        zero_init: bool = False,
    ) -> None:
        def conv() -> nn.Module:
            return Conv[Conv.CONV, spatial_dims](channels, channels, 3, padding=1, padding_mode=padding_mode)

        last = conv()
        tail = [] if zero_init else [get_norm_layer(norm, spatial_dims, channels)]
        super().__init__(conv(), get_norm_layer(norm, spatial_dims, channels), nn.ReLU(), last, *tail)
        self.zero_init = zero_init

    def reset_last(self) -> None:
        """Make a branch with ``zero_init`` return zeros; call it after any other initialisation."""
        if self.zero_init:
            for parameter in self[3].parameters():
                nn.init.zeros_(parameter)
