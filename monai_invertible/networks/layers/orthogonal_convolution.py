r"""An orthogonal 1x1 convolution from a few Householder reflections; its inverse is its transpose.

Putzky and Welling, Invert to Learn to Invert, NeurIPS 2019, section 2.2.1, eq. 16; after Tomczak and Welling 2016 and
Hoogeboom et al. 2019.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from monai_invertible.autograd.module import InvertibleModule, State

__all__ = ["OrthogonalConvolution"]


class OrthogonalConvolution(InvertibleModule):
    r"""The same orthogonal product of the channels at every position.

    ``forward``: :math:`y = U x`. ``inverse``: :math:`x = U^T y`.
    With reflections :math:`U = H_D \dots H_1`, :math:`H_k = I - 2 v_k v_k^T / |v_k|^2`.

    The product is taken as :math:`x - V^T (W x)` with D x C matrices, 2 D C multiplications a position instead of C^2.
    In a chain: saves nothing, recomputes one product. Error: one rounding of the product; norms are kept, so errors do
    not grow. The product runs in at least float32, also under autocast, since a rounded U is not orthogonal (about
    0.4 % off in bfloat16).

    Args:
        channels: C.
        reflections: D; the paper takes 3. At most ``channels`` are used.

    Shapes: ``(B, C, *spatial)`` to the same, in any number of spatial dimensions; of a state of several
    tensors the last.

    Raises:
        ValueError: an input with another number of channels.
    """

    def __init__(self, channels: int, reflections: int = 3) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(min(reflections, channels), channels))

    def factors(self) -> tuple[Tensor, Tensor]:
        """V and W of shape ``(D, C)`` with U = I - V^T W: the reflections, gathered by forward substitution."""
        vectors = self.vectors.to(torch.promote_types(self.vectors.dtype, torch.float32))
        v = vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        gram = v @ v.T
        w = [2 * v[0]]
        for k in range(1, len(v)):
            w.append(2 * (v[k] - gram[k, :k] @ torch.stack(w)))
        return v, torch.stack(w)

    def matrix(self) -> Tensor:
        """U, shape ``(C, C)``."""
        v, w = self.factors()
        return torch.eye(v.shape[1], dtype=v.dtype, device=v.device) - v.T @ w

    def forward(self, *state: Tensor, **context: Any) -> State:
        """U x."""
        *rest, x = state
        y = self._product(x, transposed=False)
        return (*rest, y) if rest else y

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """U^T y."""
        *rest, y = state
        x = self._product(y, transposed=True)
        return (*rest, x) if rest else x

    def _product(self, x: Tensor, transposed: bool) -> Tensor:
        channels = self.vectors.shape[1]
        if x.shape[1] != channels:
            raise ValueError(
                f"OrthogonalConvolution: built for {channels} channels, got {x.shape[1]}. Use channels={x.shape[1]}."
            )
        with torch.autocast(x.device.type, enabled=False):
            v, w = self.factors()
            left, right = (w, v) if transposed else (v, w)
            z = x.to(v.dtype).flatten(2)
            b = z.shape[0]
            z = torch.baddbmm(z, left.T.expand(b, -1, -1), torch.bmm(right.expand(b, -1, -1), z), alpha=-1)
        return z.to(x.dtype).unflatten(2, x.shape[2:])

    def extra_repr(self) -> str:
        return f"channels={self.vectors.shape[1]}, reflections={self.vectors.shape[0]}"
