"""Reversible classifiers without lossy pooling: i-RevNet, its hybrid with layer-wise invertibility, the layer-wise one.

Jacobsen, Smeulders and Oyallon, i-RevNet, ICLR 2018, arXiv 1802.07088, in the variant of Hascoet et al., Layer-Wise
Invertibility for Extreme Memory Cost Reduction of CNN Training, 2019, arXiv 1910.11127, table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor

from monai_invertible.autograd.module import InvertibleModule, as_tuple
from monai_invertible.networks.blocks.classifier_head import ClassifierHead
from monai_invertible.networks.blocks.convolution_branch import ConvolutionBranch
from monai_invertible.networks.layers.coupling import AdditiveCoupling
from monai_invertible.networks.layers.invertible_batch_norm import InvertibleBatchNorm
from monai_invertible.networks.layers.invertible_leaky_relu import InvertibleLeakyReLU
from monai_invertible.networks.layers.layerwise import LayerwiseBranch, layerwise_unit
from monai_invertible.networks.layers.micro_batches import MicroBatchedSequential
from monai_invertible.networks.layers.pooling import BatchPooling, ChannelPooling
from monai_invertible.networks.scripting import ScriptedByTrace

__all__ = ["IRevNet"]


class IRevNet(ScriptedByTrace):
    """A classifier that is one invertible chain, from its first convolution to the maximum before its last layer.

    Stages of couplings (or, for ``branch=None``, of layer-wise invertible layers without any coupling) with
    :class:`~monai_invertible.networks.layers.ChannelPooling` (channels times ``2 ** spatial_dims``) or
    :class:`~monai_invertible.networks.layers.BatchPooling` (the same channels, more images) between them.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: of the images.
        num_classes: of the logits.
        channels: of the first stage, a multiple of four.
        blocks: couplings of each stage (layer-wise: units of convolution, normalisation and activation).
        pools: "channel" or "batch" before each stage but the first.
        branch: "convolution", two plain convolutions with normalisation and activation each (i-RevNet); "layerwise",
            the same of invertible layers, inverted one by one (the paper's hybrid); None, no couplings (layer-wise).
            The first stage has one convolution a branch.
        negative_slope: of the activations.
        invertible_eps: of the invertible batch norms.
        micro_batches: how many pieces the batch is recomputed in, for less memory and more time, see
            :class:`~monai_invertible.networks.layers.micro_batches.MicroBatchedSequential`; not with the branch
            "convolution".
        backprop: "invert", "checkpoint" or "store".

    Shapes: ``(B, in_channels, *spatial)``, sizes multiples of ``2 ** len(pools)``, to ``(B, num_classes)``.

    Raises:
        ValueError: not one pooling fewer than stages, an unknown pooling or branch, or channels that do not split.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 3,
        num_classes: int = 10,
        *,
        channels: int = 32,
        blocks: Sequence[int] = (1, 2, 2, 1),
        pools: Sequence[str] = ("channel", "channel", "batch"),
        branch: str | None = "layerwise",
        negative_slope: float = 0.2,
        invertible_eps: float = 0.1,
        micro_batches: int = 1,
        backprop: str = "invert",
    ) -> None:
        super().__init__()
        if len(pools) != len(blocks) - 1 or not set(pools) <= {"channel", "batch"}:
            raise ValueError(
                f'IRevNet: pools must be "channel" or "batch", one fewer than the {len(blocks)} stages, got '
                f'{tuple(pools)}. Use for example blocks=(1, 2, 2, 1), pools=("channel", "channel", "batch").'
            )
        if branch not in ("convolution", "layerwise", None):
            raise ValueError(f'IRevNet: branch must be "convolution", "layerwise" or None, got {branch!r}. Choose one.')
        if channels < 4 or channels % 4:
            raise ValueError(f"IRevNet: channels must be a multiple of four to split twice, got {channels}. Use 32.")
        self.stem = Conv[Conv.CONV, spatial_dims](in_channels, channels, kernel_size=3, padding=1, bias=False)
        numbers: dict[str, Any] = {"negative_slope": negative_slope, "invertible_eps": invertible_eps}

        def coupling(width: int, units: int) -> InvertibleModule:
            if branch == "convolution":
                return AdditiveCoupling(
                    *(ConvolutionBranch(spatial_dims, width, units, negative_slope=negative_slope) for _ in "FG")
                )
            return AdditiveCoupling(
                *(LayerwiseBranch(spatial_dims, width, units, **numbers, backprop=backprop) for _ in "FG")
            )

        stride = (2,) * spatial_dims
        layers: list[InvertibleModule] = [
            InvertibleBatchNorm(channels, invertible_eps=invertible_eps),
            InvertibleLeakyReLU(negative_slope),
        ]
        width, parts = channels, 1
        for stage, (count, pool) in enumerate(zip(blocks, (None, *pools), strict=True)):
            if pool == "channel":
                layers.append(ChannelPooling(stride))
                width *= 2**spatial_dims
            elif pool == "batch":
                layers.append(BatchPooling(stride))
                parts *= 2**spatial_dims
            for _ in range(count):
                if branch is None:
                    layers += layerwise_unit(spatial_dims, width, **numbers)
                else:
                    layers.append(coupling(width // 2, 1 if stage == 0 else 2))
        self.chain = MicroBatchedSequential(*layers, micro_batches=micro_batches, backprop=backprop)
        self.head = ClassifierHead(width, num_classes, parts)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        pieces = self.chain.pieces
        if len(x) < pieces:
            raise ValueError(
                f"IRevNet: a batch must have an image for each of the {pieces} micro-batches, got {len(x)} images. Use "
                "micro_batches=1 or larger batches."
            )
        state = self.chain(*(self.stem(piece) for piece in x.tensor_split(pieces)))
        return torch.cat([self.head(piece) for piece in as_tuple(state)[-pieces:]])

    def example_input(self) -> Tensor:
        """A small image, on the network's device."""
        weight = self.stem.weight
        return weight.new_zeros(1, weight.shape[1], *(32,) * (weight.ndim - 2))
