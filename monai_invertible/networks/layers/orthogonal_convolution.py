r"""An orthogonal 1x1 convolution from a few Householder reflections; its inverse is its transpose.

Putzky and Welling, Invert to Learn to Invert, NeurIPS 2019, section 2.2.1, eq. 16; after Tomczak and Welling 2016 and
Hoogeboom et al. 2019.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from monai_invertible.autograd.module import InvertibleModule

__all__ = ["OrthogonalConvolution"]


class OrthogonalConvolution(InvertibleModule):
    r"""``forward``: :math:`y = U x` at every position; ``inverse``: :math:`x = U^T y`. :math:`U = H_D \dots H_1`,
    :math:`H_k = I - 2 v_k v_k^T / |v_k|^2`.

    In a chain: saves nothing, recomputes one product. Error: one rounding of the product; norms are kept, so errors do
    not grow. The product runs in at least float32, also under autocast, since a rounded U is not orthogonal (about 0.4
    % off in bfloat16).

    Args:
        channels: C.
        reflections: D; the paper takes 3. At most ``channels`` are used.

    Shapes: ``(B, C, *spatial)`` to the same, in any number of spatial dimensions.

    Raises:
        ValueError: an input with another number of channels.
    """

    def __init__(self, channels: int, reflections: int = 3) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(min(reflections, channels), channels))

    def matrix(self) -> Tensor:
        """U, shape ``(C, C)``."""
        vectors = self.vectors.to(torch.promote_types(self.vectors.dtype, torch.float32))
        u = torch.eye(vectors.shape[1], dtype=vectors.dtype, device=vectors.device)
        for v in vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True):
            u = u - 2 * torch.outer(v, v @ u)
        return u

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        """U x."""
        return self._product(x, transposed=False)

    def inverse(self, x: Tensor, **context: Any) -> Tensor:
        """U^T x."""
        return self._product(x, transposed=True)

    def _product(self, x: Tensor, transposed: bool) -> Tensor:
        channels = self.vectors.shape[1]
        if x.shape[1] != channels:
            raise ValueError(
                f"OrthogonalConvolution: built for {channels} channels, got {x.shape[1]}. Use channels={x.shape[1]}."
            )
        with torch.autocast(x.device.type, enabled=False):
            u = self.matrix()
            y = torch.matmul(u.T if transposed else u, x.to(u.dtype).flatten(2))
        return y.to(x.dtype).unflatten(2, x.shape[2:])

    def extra_repr(self) -> str:
        return f"channels={self.vectors.shape[1]}, reflections={self.vectors.shape[0]}"
