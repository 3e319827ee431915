r"""Learnable invertible downsampling: a strided convolution with an orthogonal matrix; its inverse is its transpose.

Etmann, Ke and Schoenlieb, iUNets, 2020, arXiv 2005.05220, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import pi, prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_invertible.autograd.module import InvertibleModule, State
from monai_invertible.networks.layers.space_to_channel import check_stride

__all__ = ["OrthogonalDownsample"]


class OrthogonalDownsample(InvertibleModule):
    r"""Each channel's blocks of neighbouring positions become channels, in a learned orthogonal basis of the block.

    ``forward``: :math:`(\dots, x) \mapsto (\dots, y)` with :math:`y_c[i] = Q_c\, x_c[\text{block } i]`,
    :math:`Q_c \in O(m)`, :math:`m = \prod s`. ``inverse``: :math:`x_c[\text{block } i] = Q_c^T y_c[i]`.

    :math:`Q_c` starts as the Haar wavelet (for other strides than 2 the orthonormal cosine transform), so that the
    first of m channels is a block's scaled mean. In a chain: saves nothing (not its input either), recomputes one
    product. Error: one rounding of the product; norms are kept, so errors do not grow. The product runs in at least
    float32, also under autocast, since a rounded Q is not orthogonal.

    Args:
        channels: C.
        stride: s, one number per spatial dimension, of one to three.
        orthogonal_map: from the parameters P of a channel to an orthogonal matrix, with :math:`A = P - P^T`: "cayley"
            :math:`(I + A)^{-1} (I - A)`, "matrix_exp" :math:`e^A`, or "householder", the product of the reflections
            whose normals are the rows of P. Each starts at I and is followed by the wavelet.

    Shapes: ``(B, C, *spatial)`` to ``(B, C m, *spatial / s)``; of a state of several tensors the last.

    Raises:
        ValueError: an unknown map, other channels, or a size that the stride does not divide.
    """

    def __init__(self, channels: int, stride: Sequence[int], *, orthogonal_map: str = "cayley") -> None:
        super().__init__()
        if orthogonal_map not in ("cayley", "matrix_exp", "householder"):
            raise ValueError(
                'OrthogonalDownsample: orthogonal_map must be "cayley", "matrix_exp" or "householder", got '
                f"{orthogonal_map!r}. Choose one of these."
            )
        self.channels = channels
        self.stride = tuple(stride)
        self.orthogonal_map = orthogonal_map
        cells = prod(self.stride)
        if orthogonal_map == "householder":  # in pairs that undo each other
            self.raw = nn.Parameter(torch.randn(channels, cells // 2, cells).repeat_interleave(2, dim=1))
        else:
            self.raw = nn.Parameter(torch.zeros(channels, cells, cells))

    def matrix(self) -> Tensor:
        """Q of every channel, shape ``(C, m, m)``, in at least float32."""
        raw = self.raw.to(torch.promote_types(self.raw.dtype, torch.float32))
        start = wavelet(self.stride).to(raw)
        if self.orthogonal_map == "householder":
            matrix = start.expand(self.channels, -1, -1)
            for normal in (raw / torch.linalg.vector_norm(raw, dim=2, keepdim=True)).unbind(1):
                matrix = matrix - 2 * (matrix @ normal[:, :, None]) * normal[:, None]
            return matrix
        skew = raw - raw.mT
        if self.orthogonal_map == "matrix_exp":
            return start @ torch.linalg.matrix_exp(skew)
        identity = torch.eye(len(start), dtype=raw.dtype, device=raw.device)
        return start @ torch.linalg.solve(identity + skew, identity - skew)

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Q x."""
        *rest, x = state
        check_stride(self, x, self.stride)
        y = self._product(x, self.channels, getattr(F, f"conv{len(self.stride)}d"))
        return (*rest, y) if rest else y

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """Q^T y."""
        *rest, y = state
        x = self._product(y, self.channels * prod(self.stride), getattr(F, f"conv_transpose{len(self.stride)}d"))
        return (*rest, x) if rest else x

    def _product(self, x: Tensor, channels: int, function: Any) -> Tensor:
        if x.shape[1] != channels:
            raise ValueError(
                f"OrthogonalDownsample: built for channels={self.channels} and stride={self.stride}, so it takes "
                f"{channels} channels here, got {x.shape[1]}. Build it for the channels that it is given."
            )
        with torch.autocast(x.device.type, enabled=False):
            weight = self.matrix().reshape(-1, 1, *self.stride)
            return function(x.to(weight.dtype), weight, stride=self.stride, groups=self.channels).to(x.dtype)

    def extra_repr(self) -> str:
        return f"channels={self.channels}, stride={self.stride}, orthogonal_map={self.orthogonal_map!r}"


def wavelet(stride: tuple[int, ...]) -> Tensor:
    """The orthonormal cosine transform of a block, ``(m, m)``, float64; Haar's wavelet for a stride of 2."""

    def cosines(n: int) -> Tensor:
        k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n)
        matrix = torch.cos(pi * k * (2 * i + 1) / (2 * n)) * (2 / n) ** 0.5
        matrix[0] /= 2**0.5
        return matrix

    return reduce(torch.kron, [cosines(n) for n in stride])
