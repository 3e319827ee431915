"""The variational auto-encoder branch: reconstruct the image from the bottleneck, as a regulariser.

Myronenko, 3D MRI brain tumor segmentation using autoencoder regularization, 2018, arXiv 1810.11654, section 2.2; used
by Yamazaki et al., Invertible Residual Network with Regularization, 2021, arXiv 2103.09042, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from monai.networks.blocks.acti_norm import ADN
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from monai_invertible.autograd.backprop import BackpropSwitch
from monai_invertible.autograd.checkpointing import run_checkpointed
from monai_invertible.networks.blocks.linear_upsample import LinearUpsample

__all__ = ["VariationalBranch"]


class VariationalBranch(BackpropSwitch):
    r"""From the bottleneck to a Gaussian latent, from a sample of it back to the image.

    :math:`(\mu, \log\sigma^2) = \mathrm{fc}(\mathrm{conv}_{s2}(\mathrm{relu}(\mathrm{norm}(b))))`,
    :math:`z = \mu + \sigma \epsilon` (in evaluation :math:`z = \mu`), and a decoder of upsampling blocks without skips.
    It returns, per sample, :math:`L_2 = \mathrm{mean}\,(\hat x - x)^2` and
    :math:`KL = \frac1N \sum (\mu^2 + \sigma^2 - \log\sigma^2 - 1)`, N the number of voxels of the image (Myronenko's,
    without a factor 1/2).

    Nothing here is invertible. With ``backprop`` "invert" or "checkpoint" the decoder's blocks are checkpointed.

    Differences from MONAI's ``SegResNetVAE``: 128 means and 128 log-variances as in the paper (there 256 and no
    variance by default), and upsampling blocks of one convolution.

    Args:
        spatial_dims: 2 or 3 (1 works too).
        image_channels: channels of the image that is reconstructed.
        image_size: its spatial size in training, which the fully connected layers fix.
        channels: widths of the network's levels, the bottleneck's last.
        strides: strides between the levels, a tuple of one number per dimension each.
        latent: components of the latent.
        act, norm: activation and normalisation, as in MONAI's networks.
        backprop: "invert", "checkpoint" or "store".

    Shapes: bottleneck ``(B, channels[-1], *ceil(image_size / prod(strides)))`` and image ``(B, image_channels,
    *image_size)`` to two tensors ``(B,)``.

    Raises:
        ValueError: an image of another size.
    """

    def __init__(
        self,
        spatial_dims: int,
        image_channels: int,
        image_size: Sequence[int],
        channels: Sequence[int],
        strides: Sequence[Sequence[int]],
        *,
        latent: int = 128,
        act: tuple | str | None = ("leakyrelu", {"negative_slope": 0.01}),
        norm: tuple | str | None = ("instance", {"affine": True}),
        backprop: str = "store",
    ) -> None:
        super().__init__()
        self.backprop = backprop
        self.image_size = tuple(image_size)
        total = [prod(step[dim] for step in strides) for dim in range(spatial_dims)]
        bottleneck = [-(-n // t) for n, t in zip(self.image_size, total, strict=True)]
        self.grid = (16, *(-(-n // 2) for n in bottleneck))
        self.reduce = nn.Sequential(
            ADN("NA", channels[-1], "relu", norm, spatial_dims),
            Conv[Conv.CONV, spatial_dims](channels[-1], 16, kernel_size=3, stride=2, padding=1),
            nn.Flatten(),
        )
        self.statistics = nn.Linear(prod(self.grid), 2 * latent)
        self.expand = nn.Sequential(nn.Linear(latent, prod(self.grid)), nn.ReLU())

        def block(upsample: nn.Module, width: int) -> nn.Module:
            conv = Conv[Conv.CONV, spatial_dims](width, width, kernel_size=3, padding=1, bias=False)
            return nn.Sequential(upsample, conv, ADN("NA", width, act, norm, spatial_dims))

        blocks = [block(LinearUpsample(spatial_dims, 16, channels[-1], size=bottleneck), channels[-1])]
        for source, width, stride in reversed(list(zip(channels[1:], channels, strides, strict=False))):
            blocks.append(block(LinearUpsample(spatial_dims, source, width, stride=stride), width))
        self.blocks = nn.ModuleList(blocks)
        self.last = Conv[Conv.CONV, spatial_dims](channels[0], image_channels, kernel_size=1)

    def forward(self, bottleneck: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction error and divergence from the normal distribution, one number a sample."""
        if tuple(image.shape[2:]) != self.image_size:
            raise ValueError(
                f"VariationalBranch: built for images of vae_size={self.image_size}, got {tuple(image.shape[2:])}. "
                "Train on patches of that size, or build the network with another vae_size."
            )
        mean, log_variance = self.statistics(self.reduce(bottleneck)).float().chunk(2, dim=1)
        z = mean
        if self.training:
            z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        x = self.expand(z.to(bottleneck.dtype)).unflatten(1, self.grid)
        for block in self.blocks:
            x = block(x) if self.backprop == "store" else run_checkpointed(block, x)
        x = self.last(x)
        x = nn.functional.pad(
            x, [p for n, m in zip(image.shape[:1:-1], x.shape[:1:-1], strict=True) for p in (0, n - m)]
        )
        error = (x.float() - image.float()).square().flatten(1).mean(1)
        divergence = mean.square() + log_variance.exp() - log_variance - 1
        return error, divergence.sum(1) / prod(self.image_size)
