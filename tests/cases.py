"""The smallest example of every public layer and network: the property tests find each class by itself and look
here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from monai_invertible.autograd import Inverse, InvertibleModule, InvertibleSequential
from monai_invertible.networks.blocks import GatedResidualBlock
from monai_invertible.networks.layers import (
    AdditiveCoupling,
    BatchPooling,
    ChannelPooling,
    ChannelSplit,
    CheckerboardAttention,
    GradientUpdate,
    InvertibleBatchNorm,
    InvertibleConvolution,
    InvertibleLeakyReLU,
    InvertibleUNetCore,
    OrthogonalConvolution,
    OrthogonalCoupling,
    OrthogonalDownsample,
    ResidualCoupling,
    SpaceToChannel,
    Swap,
)
from monai_invertible.networks.nets import (
    CheckpointedDiffusionUNet,
    FullyInvertibleUNet,
    IndependentGenerators,
    InterpolationGenerators,
    InvertibleDiffusionUNet,
    InvertibleRIM,
    IRevNet,
    MagnitudeUNet,
    PartiallyInvertibleUNet,
    PlainResNet,
    PlainUNet,
    RecurrentInferenceMachine,
    ResNetGenerator,
    RevNet,
    SuperResolutionGenerators,
    TranslationGenerators,
    ZeroFilled,
)
from monai_invertible.operators import FourierSampling


@dataclass
class Case:
    """A way to build a module and what to call it with; ``shapes`` are those of the state (of the inputs, for a
    net)."""

    build: Callable[[], Any]
    shapes: tuple[tuple[int, ...], ...]
    context: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def inputs(self, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
        return tuple(torch.randn(shape).to(dtype) for shape in self.shapes)

    def extras(self, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        extras = {name: torch.randn(shape).to(dtype) for name, shape in self.context.items()}
        return {name: (t > 0).to(dtype) if name == "mask" else t for name, t in extras.items()}


def branch(channels: int, out_channels: int | None = None, dims: int = 2) -> nn.Module:
    """A branch of a coupling that keeps several tensors for backward."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    norm = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 1]
    return nn.Sequential(conv(channels, out_channels or channels, 3, padding=1), norm(channels), nn.SiLU())


class Conditioned(nn.Module):
    """A branch that reads an embedding from the context."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return torch.tanh(self.conv(x) + embedding)


def gated(dims: int) -> nn.Module:
    return GatedResidualBlock(dims, 2, 3, 4, downsample=(1, 2, 2)[-dims:])


def perturbed(layer: nn.Module) -> nn.Module:
    """With other parameters than those it starts with."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return layer


LAYERS: dict[type[InvertibleModule], list[Case]] = {
    AdditiveCoupling: [
        Case(lambda: AdditiveCoupling(branch(2), branch(2)), ((2, 4, 5, 6),)),
        Case(lambda: AdditiveCoupling(branch(2, dims=3), branch(2, dims=3)), ((1, 4, 3, 4, 5),)),
        Case(lambda: AdditiveCoupling(None, nn.Conv2d(2, 3, 1), split=(2, 3)), ((2, 5, 4, 4),)),
        Case(lambda: AdditiveCoupling(nn.Linear(4, 3), nn.Linear(3, 4), split=False), ((2, 3), (2, 4))),
        Case(lambda: AdditiveCoupling(Conditioned(), branch(2)), ((2, 4, 5, 6),), {"embedding": (2, 2, 1, 1)}),
    ],
    ChannelSplit: [
        Case(lambda: ChannelSplit(), ((2, 4, 3, 3),)),
        Case(lambda: ChannelSplit((1, 4)), ((2, 3), (2, 5, 3, 3))),
    ],
    CheckerboardAttention: [
        Case(lambda: perturbed(CheckerboardAttention(4)), ((2, 4, 5, 3),)),
        Case(lambda: perturbed(CheckerboardAttention(3, parity=1, offset=2.0)), ((2, 1), (2, 3, 4, 3, 2))),
        Case(lambda: perturbed(CheckerboardAttention(3, form="token")), ((2, 3, 3, 3, 3),)),
        Case(lambda: perturbed(CheckerboardAttention(2, form="token", parity=1)), ((1, 2, 4, 3),)),
    ],
    InvertibleBatchNorm: [
        Case(lambda: perturbed(InvertibleBatchNorm(3)), ((4, 3, 5, 2),)),
        Case(lambda: perturbed(InvertibleBatchNorm(2, invertible_eps=0.0)), ((1, 2), (2, 2, 3, 4, 2))),
        Case(lambda: perturbed(InvertibleBatchNorm(2)).eval(), ((1, 2), (2, 2, 3))),
        Case(lambda: perturbed(InvertibleBatchNorm(2, push_statistics=False)).eval(), ((3, 2, 3),)),
    ],
    InvertibleConvolution: [
        Case(lambda: InvertibleConvolution(2, 5), ((2, 5, 4, 6),)),
        Case(lambda: InvertibleConvolution(3, 4, kernel_size=(1, 3, 3)), ((1, 4, 2, 3, 4),)),
    ],
    InvertibleLeakyReLU: [
        Case(lambda: InvertibleLeakyReLU(0.1), ((2, 3, 4),)),
        Case(lambda: InvertibleLeakyReLU(1.0), ((2, 1), (2, 3, 4))),
    ],
    ChannelPooling: [
        Case(lambda: ChannelPooling((2, 2)), ((2, 3, 4, 6),)),
        Case(lambda: ChannelPooling((1, 2, 3)), ((2, 1, 3), (1, 2, 2, 4, 3))),
    ],
    BatchPooling: [
        Case(lambda: BatchPooling((2, 2)), ((2, 3, 4, 6),)),
        Case(lambda: BatchPooling((1, 2, 3)), ((2, 1, 3), (1, 2, 2, 4, 3))),
    ],
    OrthogonalConvolution: [
        Case(lambda: OrthogonalConvolution(5), ((2, 5, 4, 3),)),
        Case(lambda: OrthogonalConvolution(2), ((2, 2, 4, 3, 2),)),
    ],
    OrthogonalCoupling: [
        Case(lambda: OrthogonalCoupling(5, gated(2), split=(2, 3)), ((2, 5, 5, 7),)),
        Case(lambda: OrthogonalCoupling(5, gated(3), split=(2, 3)), ((1, 5, 3, 5, 4),)),
    ],
    OrthogonalDownsample: [
        Case(lambda: perturbed(OrthogonalDownsample(2, (2, 2))), ((2, 2, 4, 6),)),
        Case(lambda: perturbed(OrthogonalDownsample(1, (1, 2, 3), orthogonal_map="matrix_exp")), ((1, 1, 2, 4, 3),)),
        Case(lambda: perturbed(OrthogonalDownsample(3, (4,), orthogonal_map="householder")), ((2, 3), (2, 3, 8))),
    ],
    ResidualCoupling: [
        Case(lambda: ResidualCoupling(2, 4), ((2, 4, 5, 6),)),
        Case(
            lambda: ResidualCoupling(3, 5, kernel_size=(1, 3, 3), norm=("group", {"num_groups": 1})), ((1, 5, 3, 4, 2),)
        ),
    ],
    Swap: [Case(lambda: Swap(), ((1, 2), (2, 3, 4), (2, 2, 4)))],
    SpaceToChannel: [
        Case(lambda: SpaceToChannel((2, 2)), ((2, 3, 4, 6),)),
        Case(lambda: SpaceToChannel((1, 2, 3)), ((2, 1, 3), (1, 2, 2, 4, 3))),
    ],
    GradientUpdate: [
        Case(
            lambda: GradientUpdate(FourierSampling(), 5),
            ((2, 5, 6, 5),),
            {"zero_filled": (2, 2, 6, 5), "mask": (2, 1, 1, 5, 1)},
        ),
        Case(
            lambda: GradientUpdate(FourierSampling(), 8, image_channels=4),
            ((2, 8, 4, 5),),
            {"zero_filled": (2, 2, 4, 5), "mask": (1, 1, 1, 5, 1), "sensitivities": (2, 3, 4, 5, 2)},
        ),
    ],
    Inverse: [
        Case(lambda: Inverse(AdditiveCoupling(branch(2), branch(2))), ((2, 4, 5, 6),)),
        Case(lambda: Inverse(OrthogonalConvolution(4)), ((2, 4, 5),)),
    ],
    InvertibleUNetCore: [
        Case(
            lambda: InvertibleUNetCore((5, 8), ((2, 2),), lambda c: [ResidualCoupling(2, c)]),
            ((2, 2, 4, 6), (2, 3, 4, 6)),
        ),
        Case(
            lambda: InvertibleUNetCore(
                (6, 6), ((2, 1),), lambda c: [], on_skip=lambda c: [CheckerboardAttention(c)], downsample="cayley"
            ),
            ((2, 3, 4, 3), (2, 3, 4, 3)),
        ),
    ],
    InvertibleSequential: [
        Case(
            lambda: InvertibleSequential(AdditiveCoupling(branch(2), branch(2)), OrthogonalConvolution(4)),
            ((2, 4, 5, 6),),
        ),
    ],
}

NETS: dict[type[nn.Module], list[Case]] = {
    FullyInvertibleUNet: [
        Case(lambda: FullyInvertibleUNet(2, 1, 2, (4, 8, 16), (2, 2)), ((2, 1, 9, 8),)),
        Case(
            lambda: FullyInvertibleUNet(3, 2, 3, (4, 8), ((1, 2, 2),), downsample="cayley", vae_size=(4, 5, 6)),
            ((2, 2, 4, 5, 6),),
        ),
        Case(lambda: FullyInvertibleUNet(3, 1, 2, (4, 8), (2,), branch="layerwise"), ((2, 1, 4, 5, 6),)),
    ],
    InvertibleDiffusionUNet: [
        Case(
            lambda: InvertibleDiffusionUNet(2, 1, 1, (4, 8), (2,), branch="layerwise"),
            ((2, 1, 8, 12),),
            {"timesteps": (2,)},
        ),
        Case(
            lambda: perturbed(InvertibleDiffusionUNet(2, 1, 2, (6, 8, 16), norm_num_groups=2)),
            ((2, 1, 9, 16),),
            {"timesteps": (2,)},
        ),
        Case(
            lambda: perturbed(
                InvertibleDiffusionUNet(
                    3, 2, 1, (16, 16), ((1, 2, 2),), bookends=False, attention="token", cross_attention_dim=3
                )
            ),
            ((2, 2, 4, 4, 8),),
            {"timesteps": (1,), "context": (2, 2, 3)},
        ),
    ],
    CheckpointedDiffusionUNet: [
        Case(
            lambda: CheckpointedDiffusionUNet(
                2, 1, 1, channels=(4, 8), attention_levels=(False, True), num_res_blocks=1, norm_num_groups=2
            ),
            ((2, 1, 8, 8),),
            {"timesteps": (2,)},
        )
    ],
    IRevNet: [
        Case(lambda: IRevNet(2, 1, 3, channels=8), ((4, 1, 8, 16),)),
        Case(lambda: IRevNet(3, 2, 3, channels=4, blocks=(1, 1), pools=("channel",)), ((4, 2, 4, 2, 4),)),
        Case(
            lambda: IRevNet(2, 1, 3, channels=4, blocks=(1, 1), pools=("batch",), branch="convolution"), ((4, 1, 4, 6),)
        ),
        Case(lambda: IRevNet(2, 1, 3, channels=4, blocks=(1, 1), pools=("channel",), branch=None), ((4, 1, 4, 6),)),
        Case(lambda: IRevNet(2, 1, 3, channels=4, blocks=(1, 2), pools=("batch",), micro_batches=2), ((5, 1, 4, 6),)),
    ],
    RevNet: [Case(lambda: RevNet(2, 1, 3, channels=(4, 6), blocks=(1, 2)), ((4, 1, 8, 6),))],
    PlainResNet: [Case(lambda: PlainResNet(2, 1, 3, channels=(4, 6), blocks=(1, 2)), ((4, 1, 8, 6),))],
    PartiallyInvertibleUNet: [
        Case(lambda: PartiallyInvertibleUNet(2, 1, 2, (4, 8, 16), (2, 2)), ((2, 1, 9, 8),)),
        Case(lambda: PartiallyInvertibleUNet(2, 1, 2, (4, 8), (2,), branch="layerwise"), ((2, 1, 9, 8),)),
        Case(lambda: PartiallyInvertibleUNet(3, 2, 3, (4, 8), ((1, 2, 2),), vae_size=(4, 5, 6)), ((2, 2, 4, 5, 6),)),
    ],
    PlainUNet: [
        Case(lambda: PlainUNet(2, 1, 2, (4, 8, 16), (2, 2)), ((2, 1, 9, 8),)),
        Case(lambda: PlainUNet(3, 2, 3, (4, 8), ((1, 2, 2),), vae_size=(4, 5, 6)), ((2, 2, 4, 5, 6),)),
    ],
    InvertibleRIM: [
        Case(lambda: InvertibleRIM(2, 2, channels=6, hidden_channels=4, downsample=(1, 2)), ((2, 1, 9, 10, 2),)),
        Case(lambda: InvertibleRIM(3, 2, channels=6, hidden_channels=4, downsample=(2,)), ((1, 1, 3, 6, 5, 2),)),
        Case(lambda: InvertibleRIM(2, 2, channels=4, downsample=(1, 1), branch="layerwise"), ((2, 1, 6, 8, 2),)),
        Case(
            lambda: InvertibleRIM(
                2, 2, channels=9, hidden_channels=(4, 3), downsample=(1, 2), multiplicity=2, initial="zero_filled"
            ),
            ((1, 3, 6, 7, 2),),
            {"mask": (1, 1, 1, 7, 1), "sensitivities": (1, 3, 6, 7, 2)},
        ),
    ],
    RecurrentInferenceMachine: [
        Case(lambda: RecurrentInferenceMachine(2, 2, channels=4), ((2, 1, 9, 10, 2),)),
        Case(lambda: RecurrentInferenceMachine(3, 2, channels=3), ((1, 1, 3, 6, 5, 2),)),
    ],
    TranslationGenerators: [Case(lambda: TranslationGenerators(2, 1, 3, 4, 2), ((2, 1, 8, 12),))],
    ResNetGenerator: [Case(lambda: ResNetGenerator(2, 1, 3, 4, 2), ((2, 1, 8, 12),))],
    IndependentGenerators: [
        Case(lambda: IndependentGenerators(ResNetGenerator(2, 1, 3, 4, 1), nn.Conv2d(3, 1, 1)), ((2, 1, 8, 8),))
    ],
    SuperResolutionGenerators: [
        Case(lambda: perturbed(SuperResolutionGenerators(3, 2, 2, 4, 2)), ((2, 2, 3, 4, 5),)),
        Case(lambda: SuperResolutionGenerators(2, 1, 3, 4, 0, act="relu"), ((2, 1, 5, 4),)),
    ],
    MagnitudeUNet: [Case(lambda: MagnitudeUNet(2, num_pool_layers=2), ((2, 1, 9, 10, 2),))],
    InterpolationGenerators: [Case(lambda: InterpolationGenerators("cubic"), ((2, 3, 6, 5, 4),))],
    ZeroFilled: [Case(lambda: ZeroFilled(), ((2, 1, 9, 10, 2),))],
}
