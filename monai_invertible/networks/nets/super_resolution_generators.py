"""RevGAN's 3D generators for super-resolution: an SRCNN in each direction around one invertible core.

Van der Ouderaa and Worrall, CVPR 2019, arXiv 1902.02729, section 5.3; SRCNN after Dong et al. 2014 and, for diffusion
tensors, Tanno et al. 2017.
"""

from __future__ import annotations

from monai.networks.layers.factories import Conv
from monai.networks.layers.utils import get_act_layer
from monai.networks.utils import normal_init
from torch import Tensor, nn

from monai_invertible.autograd.sequential import InvertibleSequential
from monai_invertible.networks.blocks.generator_pair import GeneratorPair
from monai_invertible.networks.blocks.residual_branch import ResidualBranch
from monai_invertible.networks.layers.coupling import AdditiveCoupling

__all__ = ["SuperResolutionGenerators"]


class SuperResolutionGenerators(GeneratorPair):
    r""":math:`F = D_Y \circ C \circ E_X` and :math:`G = D_X \circ C^{-1} \circ E_Y`: X of low resolution, brought to
    the grid of Y beforehand, Y of high resolution.

    Encoder: 3x3x3 convolution (edges repeated). Core: additive couplings whose branches
    (:class:`~monai_invertible.networks.blocks.ResidualBranch` with batch norm) end in a convolution of zeros, so that
    it starts as the identity at any depth. Decoder: 1x1x1 convolution. Without couplings (``depth=0``) this is the
    SRCNN of the paper's tables, one network a direction, which in the authors' code is linear; ``act="relu"`` puts an
    activation behind the encoder's convolution.

    Args:
        spatial_dims: 3 (1 and 2 work too).
        in_channels: channels of X; 6 components of a diffusion tensor.
        out_channels: channels of Y.
        channels: n, the width of the core; even.
        depth: couplings in the core.
        act: activation behind the encoders' convolution; None for none, as in the authors' code.
        norm: of the branches, as in MONAI's networks; the authors have batch norm. "" or None for none, which the
            super-resolution of Lim et al. (EDSR, 2017) found better; PyTorch's initialisation then, because the
            authors', N(0, 0.02), relies on it.
        backprop: of the core, "invert", "checkpoint" or "store".

    Shapes: ``(B, in_channels, *spatial)`` to ``(B, out_channels, *spatial)`` of any size; standardised values, not
    limited. With ``direction="inverse"`` the other way.

    Raises:
        ValueError: an odd number of channels, or an unknown direction or ``backprop``.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 6,
        out_channels: int = 6,
        channels: int = 64,
        depth: int = 4,
        *,
        act: tuple | str | None = None,
        norm: tuple | str | None = "batch",
        backprop: str = "invert",
    ) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(
                f"SuperResolutionGenerators: channels must be even to split, got {channels}. Use {channels + 1}."
            )
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        conv = Conv[Conv.CONV, spatial_dims]

        def encoder(source: int) -> nn.Module:
            first = conv(source, channels, 3, padding=1, padding_mode="replicate")
            return first if act is None else nn.Sequential(first, get_act_layer(act))

        def branch() -> ResidualBranch:
            return ResidualBranch(
                spatial_dims, channels // 2, padding_mode="replicate", norm=norm or "", zero_init=True
            )

        self.encoder_x = encoder(in_channels)
        self.encoder_y = encoder(out_channels)
        self.core = InvertibleSequential(
            *(AdditiveCoupling(branch(), branch()) for _ in range(depth)), backprop=backprop
        )
        self.decoder_x = conv(channels, in_channels, 1)
        self.decoder_y = conv(channels, out_channels, 1)
        if norm:
            self.apply(normal_init)  # N(0, 0.02), biases 0
        for module in self.modules():
            if isinstance(module, ResidualBranch):
                module.reset_last()

    def translate(self, x: Tensor) -> Tensor:
        return self.decoder_y(self.core(self.encoder_x(x)))

    def translate_back(self, y: Tensor) -> Tensor:
        return self.decoder_x(self.core.inverse(self.encoder_y(y)))

    def example_input(self) -> Tensor:
        """A small image of X, on the network's device."""
        return next(self.parameters()).new_zeros(1, self.in_channels, *(8,) * self.spatial_dims)
