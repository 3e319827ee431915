"""The invertible diffusion U-Net (IDM): a denoiser whose training memory does not grow with its depth.

Jain and Teli, Bringing together invertible UNets with invertible attention modules for memory-efficient diffusion
models, 2025, arXiv 2504.10883: the core of an iUNet (Etmann et al. 2020) with learnable down-sampling and invertible
attention on the skips, between two ends that are not invertible.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import torch
from monai.networks.nets.diffusion_model_unet import get_timestep_embedding
from torch import Tensor, nn
from torch.nn import functional as F

from monai_invertible.autograd.module import InvertibleModule, as_tuple
from monai_invertible.networks.blocks.bookends import Bookends
from monai_invertible.networks.blocks.padding import missing_padding
from monai_invertible.networks.blocks.segmentation_unet import stride_tuples
from monai_invertible.networks.blocks.time_shifted_convolution import TimeShiftedConvolution
from monai_invertible.networks.layers.checkerboard_attention import CheckerboardAttention
from monai_invertible.networks.layers.coupling import AdditiveCoupling
from monai_invertible.networks.layers.invertible_unet_core import InvertibleUNetCore, halves
from monai_invertible.networks.layers.layerwise import check_branch, layerwise_branch
from monai_invertible.networks.layers.space_to_channel import SpaceToChannel
from monai_invertible.networks.scripting import ScriptedByTrace

__all__ = ["InvertibleDiffusionUNet"]


class InvertibleDiffusionUNet(ScriptedByTrace):
    r"""Predict the noise (or the velocity) in a noisy image, by one invertible chain between two convolutional ends.

    It is called as MONAI's ``DiffusionModelUNet`` is, so that ``DiffusionInferer`` and the schedulers take it
    unchanged. The first end halves the resolution and widens the channels, the last one mirrors it ("bookends" in the
    paper). The chain between them is an :class:`~monai_invertible.networks.layers.InvertibleUNetCore` whose couplings
    read the embedding of time and condition (context: it is not inverted, gradients flow into it), with a pair of
    :class:`~monai_invertible.networks.layers.CheckerboardAttention` of both parities on every skip.

    Training keeps the chain's output and the inputs of the two ends. The ends are evaluated again in backward
    (checkpointed) unless ``backprop="store"``; the paper stores them. ``core.inverse`` gives the chain's input back.

    Decisions where the paper's text is not available: the embedding is added as a shift per channel inside each branch;
    branches and the last end start at zero, as in MONAI's network; the ends have one hidden width, half of
    ``channels[0]``.

    Args:
        spatial_dims: 2 or 3 (or 1).
        in_channels: channels of the noisy image, and of a condition that is concatenated to it
            (``DiffusionInferer``'s mode "concat").
        out_channels: channels of the prediction.
        channels: widths of the core's levels; what the splits force otherwise is warned of.
        strides: between the levels; a number or one number per dimension each.
        num_res_units: couplings a level (in the encoder, and again in the decoder).
        bookends: False replaces the two ends by invertible maps without parameters: blocks of voxels to channels, and
            channels of zeros.
        bookend_stride: of the first and the last end.
        attention: form of the attention on the skips, "channel" or "token"; None or "" for none.
        downsample: "cayley", "matrix_exp" or "householder", learned; or "squeeze".
        norm_num_groups: of the group norms (its greatest common divisor with the channels).
        num_class_embeds: number of classes of ``class_labels``, if the network shall know them.
        cross_attention_dim: channels of the tokens of ``context``, if the network shall know it: their mean is added to
            the embedding.
        dropout: probability, in the convolution branches.
        branch: of the couplings; "convolution", or "layerwise" for a
            :class:`~monai_invertible.networks.layers.LayerwiseBranch`: twice a convolution, batch norm and activation
            that are inverted one by one. The widths must then be even.
        backprop: "invert", "checkpoint" or "store": the same results, another memory.

    Shapes: ``x`` ``(B, in_channels, *spatial)`` of any size, ``timesteps`` ``(B,)`` or ``(1,)``, ``context``
    ``(B, L, cross_attention_dim)``, ``class_labels`` ``(B,)`` to ``(B, out_channels, *spatial)``.

    Raises:
        ValueError: strides or widths that make no U-Net, an image of other channels or dimensions, timesteps for
            another number of images, a missing or an unexpected condition.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (64, 128, 256),
        strides: Sequence[Sequence[int] | int] = (2, 2),
        *,
        num_res_units: int = 2,
        bookends: bool = True,
        bookend_stride: Sequence[int] | int = 2,
        attention: str | None = "channel",
        downsample: str = "cayley",
        norm_num_groups: int = 8,
        num_class_embeds: int | None = None,
        cross_attention_dim: int | None = None,
        dropout: float = 0.0,
        branch: str = "convolution",
        backprop: str = "invert",
    ) -> None:
        super().__init__()
        who = type(self).__name__
        steps = stride_tuples(who, spatial_dims, channels, strides)
        (outer,) = stride_tuples(who, spatial_dims, channels[:2], [bookend_stride])
        if num_res_units < 1:
            raise ValueError(f"{who}: num_res_units must be at least 1, got {num_res_units}. Use 2.")
        self.time_channels, embedding = channels[0], 4 * channels[0]

        check_branch(who, branch)
        kind: Callable[..., nn.Module] = partial(
            TimeShiftedConvolution, spatial_dims, norm_num_groups=norm_num_groups, dropout=dropout
        )
        if branch == "layerwise":
            kind = partial(layerwise_branch, who, spatial_dims, backprop=backprop)

        def couplings(width: int) -> list[InvertibleModule]:
            first, second = halves(width)
            build = partial(kind, embedding_channels=embedding)
            return [
                AdditiveCoupling(build(second, first), build(first, second), split=(first, second))
                for _ in range(num_res_units)
            ]

        def on_skip(width: int) -> list[InvertibleModule]:
            return [CheckerboardAttention(width, parity=parity, form=str(attention)) for parity in (0, 1)]

        self.core = InvertibleUNetCore(
            channels,
            steps,
            couplings,
            on_skip=on_skip if attention else None,
            downsample=downsample,
            backprop=backprop,
        )
        self.in_channels = in_channels
        self.channels = self.core.channels
        self.divisor = tuple(prod([o, *(step[dim] for step in steps)]) for dim, o in enumerate(outer))
        self.time_embed = nn.Sequential(
            nn.Linear(self.time_channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding)
        )
        self.class_embedding = None if num_class_embeds is None else nn.Embedding(num_class_embeds, embedding)
        self.context_embed = None if cross_attention_dim is None else nn.Linear(cross_attention_dim, embedding)
        parts = halves(channels[0])
        self.ends: Bookends | ZeroPaddedEnds
        if bookends:
            self.ends = Bookends(
                spatial_dims,
                in_channels,
                out_channels,
                parts,
                outer,
                norm_num_groups=norm_num_groups,
                backprop=backprop,
            )
        else:
            self.ends = ZeroPaddedEnds(in_channels, out_channels, parts, outer)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor | None = None,
        context: Tensor | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """Predict. Only in evaluation, and for tools that know one input, ``timesteps`` may be left out: step 0."""
        missing = missing_padding(self, x, self.in_channels, self.divisor)
        embedding = self.embed(x, timesteps, context, class_labels)
        y = F.pad(x, missing, mode="replicate") if missing else x
        y = self.ends.project(self.core(*self.ends.lift(y), embedding=embedding))
        return F.pad(y, [-n for n in missing]) if missing else y

    def embed(
        self,
        x: Tensor,
        timesteps: Tensor | None,
        context: Tensor | None = None,
        class_labels: Tensor | None = None,
    ) -> Tensor:
        """What the couplings know of time and condition, ``(B, 4 * channels[0])``, or ``(1, ...)`` for all images."""
        self._check_conditions(len(x), timesteps, context, class_labels)
        if timesteps is None:
            timesteps = x.new_zeros(1)
        time = get_timestep_embedding(timesteps, self.time_channels)
        embedding = self.time_embed(time.to(next(self.time_embed.parameters()).dtype))
        if self.class_embedding is not None:
            embedding = embedding + self.class_embedding(class_labels)
        if self.context_embed is not None and context is not None:
            embedding = embedding + self.context_embed(context).mean(1)
        return F.silu(embedding)

    def _check_conditions(
        self, count: int, timesteps: Tensor | None, context: Tensor | None, class_labels: Tensor | None
    ) -> None:
        who = type(self).__name__
        if timesteps is None and self.training:
            raise ValueError(f"{who}: timesteps are needed in training, got None. Give one number for each image.")
        if timesteps is not None and (timesteps.ndim != 1 or len(timesteps) not in (1, count)):
            raise ValueError(
                f"{who}: timesteps must be one number for each of the {count} images, or one for all, got shape "
                f"{tuple(timesteps.shape)}. Give shape ({count},)."
            )
        for name, value, layer, option in (
            ("class_labels", class_labels, self.class_embedding, "num_class_embeds"),
            ("context", context, self.context_embed, "cross_attention_dim"),
        ):
            if (value is None) != (layer is None):
                state, remedy = ("missing", "Give it") if value is None else ("given", f"Build it with {option}=...")
                has = "without" if layer is None else "with"
                raise ValueError(f"{who}: built {has} {option}, but {name} is {state}. {remedy}.")

    def example_input(self) -> tuple[Tensor, Tensor]:
        """A small noisy image and its time, on the network's device."""
        device = next(self.parameters()).device
        size = (2 * d for d in self.divisor)
        return torch.rand(1, self.in_channels, *size, device=device), torch.tensor([500.0], device=device)


class ZeroPaddedEnds(nn.Module):
    """Ends without parameters, both invertible: blocks of voxels to channels and channels of zeros, and back.

    Args:
        in_channels, out_channels: of the images.
        parts: channels of the two tensors between the ends.
        stride: of the blocks.
    """

    def __init__(self, in_channels: int, out_channels: int, parts: tuple[int, int], stride: tuple[int, ...]) -> None:
        super().__init__()
        self.blocks = SpaceToChannel(stride)
        self.parts = parts
        self.taken = out_channels * prod(stride)
        needed = max(in_channels, out_channels) * prod(stride)
        if needed > sum(parts):
            raise ValueError(
                f"InvertibleDiffusionUNet: without bookends, channels[0] must hold the {needed} voxels of a block, got "
                f"{sum(parts)}. Use channels[0]={needed} or more."
            )

    def lift(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The state, two tensors, of an image."""
        x = as_tuple(self.blocks(x))[0]
        first, second = F.pad(x, (0, 0) * (x.ndim - 2) + (0, sum(self.parts) - x.shape[1])).split(self.parts, dim=1)
        return first, second

    def project(self, state: tuple[Tensor, Tensor]) -> Tensor:
        """The image of a state."""
        return as_tuple(self.blocks.inverse(torch.cat(state, dim=1)[:, : self.taken]))[0]
