"""Stages with ordinary pooling between them: what RevNet and its baseline, the ResNet, share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn

from monai_invertible.autograd.backprop import BackpropSwitch
from monai_invertible.autograd.checkpointing import run_checkpointed
from monai_invertible.networks.blocks.classifier_head import ClassifierHead
from monai_invertible.networks.scripting import ScriptedByTrace

__all__ = ["StagedClassifier"]


class StagedClassifier(ScriptedByTrace):
    """A first convolution, stages, and between them max pooling and a convolution to the next width.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: of the images.
        num_classes: of the logits.
        channels: widths of the stages.
        blocks: blocks of each stage.
        stage: from a stage's width, blocks and convolutions a branch (one in the first stage, two in the others) to the
            stage.
        negative_slope: of the activations.
        backprop: "invert" or "checkpoint" evaluates pooling and convolutions between the stages again in backward;
            "store" keeps their activations; None keeps them whatever a user switches.

    Shapes: ``(B, in_channels, *spatial)`` to ``(B, num_classes)``.

    Raises:
        ValueError: not as many stages as widths.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        num_classes: int,
        channels: Sequence[int],
        blocks: Sequence[int],
        stage: Callable[[int, int, int], nn.Module],
        *,
        negative_slope: float,
        backprop: str | None = None,
    ) -> None:
        super().__init__()
        if len(blocks) != len(channels):
            raise ValueError(
                f"{type(self).__name__}: blocks and channels describe the stages, got {len(blocks)} and "
                f"{len(channels)} of them. Give both the same length."
            )

        def conv(source: int, width: int) -> list[nn.Module]:
            return [
                Conv[Conv.CONV, spatial_dims](source, width, kernel_size=3, padding=1, bias=False),
                Norm[Norm.BATCH, spatial_dims](width),
            ]

        def join(*layers: nn.Module) -> nn.Module:
            return nn.Sequential(*layers) if backprop is None else _Checkpointed(*layers, backprop=backprop)

        act = nn.LeakyReLU(negative_slope, inplace=True)
        layers = [join(*conv(in_channels, channels[0]), act), stage(channels[0], blocks[0], 1)]
        for source, width, count in zip(channels, channels[1:], blocks[1:], strict=False):
            layers += [join(Pool[Pool.MAX, spatial_dims](2), *conv(source, width)), stage(width, count, 2)]
        self.features = nn.Sequential(*layers)
        self.head = ClassifierHead(channels[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.head(self.features(x))

    def example_input(self) -> Tensor:
        """A small image, on the network's device."""
        weight = next(self.parameters())
        return weight.new_zeros(1, weight.shape[1], *(32,) * (weight.ndim - 2))


class _Checkpointed(BackpropSwitch, nn.Sequential):
    def __init__(self, *layers: nn.Module, backprop: str) -> None:
        super().__init__(*layers)
        self.backprop = backprop

    def forward(self, x: Tensor) -> Tensor:
        run = super().forward
        return run(x) if self.backprop == "store" else run_checkpointed(self, x, function=run)
