"""RevGAN's generators of 2D images: one invertible core, run forward from X to Y and backward from Y to X.

Van der Ouderaa and Worrall, Reversible GANs for Memory-efficient Image-to-Image Translation, CVPR 2019, arXiv
1902.02729, section 4, figure 1.
"""

from __future__ import annotations

from monai.networks.utils import normal_init
from torch import Tensor

from monai_invertible.autograd.sequential import InvertibleSequential
from monai_invertible.networks.blocks.generator_pair import GeneratorPair
from monai_invertible.networks.blocks.residual_branch import ResidualBranch
from monai_invertible.networks.blocks.translation_coder import TranslationDecoder, TranslationEncoder
from monai_invertible.networks.layers.coupling import AdditiveCoupling

__all__ = ["TranslationGenerators"]


class TranslationGenerators(GeneratorPair):
    r""":math:`F = D_Y \circ C \circ E_X` and :math:`G = D_X \circ C^{-1} \circ E_Y` with one invertible core C.

    The encoders and decoders are four ordinary networks (those of a ResNet generator), so F and G are each other's
    inverse approximately only. C is a chain of additive couplings on 4 n channels, whose branches are
    :class:`~monai_invertible.networks.blocks.ResidualBranch` with reflection and instance norm. Instance norm has no
    running statistics: the authors' code evaluates with those of the image. Training keeps C's output, however deep it
    is, and all that encoders and decoders need.

    Args:
        spatial_dims: 2 (1 and 3 work too).
        in_channels: channels of X.
        out_channels: channels of Y.
        channels: n, the width of the first convolution.
        depth: couplings in the core; the paper has 6 for 128 x 128 pixels, 9 for 256 x 256.
        backprop: of the core, "invert", "checkpoint" or "store".

    Shapes: ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)``, sizes multiples of 4 from 8; values in
    [-1, 1]. With ``direction="inverse"`` the other way.

    Raises:
        ValueError: other sizes, or an unknown direction or ``backprop``.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        out_channels: int = 3,
        channels: int = 64,
        depth: int = 9,
        *,
        backprop: str = "invert",
    ) -> None:
        super().__init__()
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels

        def branch() -> ResidualBranch:
            return ResidualBranch(spatial_dims, 2 * channels)

        self.encoder_x = TranslationEncoder(spatial_dims, in_channels, channels)
        self.encoder_y = TranslationEncoder(spatial_dims, out_channels, channels)
        self.core = InvertibleSequential(
            *(AdditiveCoupling(branch(), branch()) for _ in range(depth)), backprop=backprop
        )
        self.decoder_x = TranslationDecoder(spatial_dims, in_channels, channels)
        self.decoder_y = TranslationDecoder(spatial_dims, out_channels, channels)
        self.apply(normal_init)  # N(0, 0.02), biases 0

    def translate(self, x: Tensor) -> Tensor:
        return self.decoder_y(self.core(self.encoder_x(x)))

    def translate_back(self, y: Tensor) -> Tensor:
        return self.decoder_x(self.core.inverse(self.encoder_y(y)))

    def example_input(self) -> Tensor:
        """A small image of X, on the network's device."""
        return next(self.parameters()).new_zeros(1, self.in_channels, *(16,) * self.spatial_dims)
