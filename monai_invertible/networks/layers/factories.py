"""The invertible layers under names in MONAI's layer factories, so that a block of MONAI can ask for them.

``Norm["invertible_batch", dims]``, ``Act["invertible_leakyrelu"]``, ``Conv["invertible", dims]`` (called with the
channels), ``Pool["invertible_channel", dims]`` and ``Pool["invertible_batch", dims]`` (called with ``kernel_size``). In
a block the norm is an ordinary one: it takes and returns one tensor, and only its evaluation can be inverted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from monai.networks.layers.factories import Act, Conv, Norm, Pool

from monai_invertible.autograd.module import InvertibleModule
from monai_invertible.networks.layers.invertible_batch_norm import InvertibleBatchNorm
from monai_invertible.networks.layers.invertible_convolution import InvertibleConvolution
from monai_invertible.networks.layers.invertible_leaky_relu import InvertibleLeakyReLU
from monai_invertible.networks.layers.pooling import BatchPooling, ChannelPooling

__all__: list[str] = []


def pooling(layer: Callable[[Sequence[int]], InvertibleModule]) -> Callable[..., Callable[..., InvertibleModule]]:
    """From the number of dimensions to a constructor that takes one size, or one per dimension, as MONAI's pooling."""

    def build(spatial_dims: int, kernel_size: Sequence[int] | int = 2) -> InvertibleModule:
        return layer((kernel_size,) * spatial_dims if isinstance(kernel_size, int) else kernel_size)

    return lambda spatial_dims: partial(build, spatial_dims)


def batch_norm(num_features: int, *, affine: bool = True, **options: Any) -> InvertibleBatchNorm:
    """Called as MONAI's blocks call a norm; it always has a scale and a shift."""
    if not affine:
        raise ValueError("InvertibleBatchNorm: always has a scale and a shift, got affine=False. Leave affine out.")
    return InvertibleBatchNorm(num_features, push_statistics=False, **options)


Norm.add_factory_callable(
    "invertible_batch",
    lambda spatial_dims=None: batch_norm,
    "InvertibleBatchNorm without its statistics in the state",
)
Act.add_factory_callable("invertible_leakyrelu", lambda: InvertibleLeakyReLU, "InvertibleLeakyReLU")
Conv.add_factory_callable(
    "invertible", lambda spatial_dims: partial(InvertibleConvolution, spatial_dims), "InvertibleConvolution"
)
Pool.add_factory_callable("invertible_channel", pooling(ChannelPooling), "ChannelPooling")
Pool.add_factory_callable("invertible_batch", pooling(BatchPooling), "BatchPooling")
