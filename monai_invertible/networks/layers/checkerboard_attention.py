r"""Invertible attention: the voxels of one colour of a checkerboard say how those of the other colour are mixed.

The iTrans module of Sukthanker et al., Generative Flows with Invertible Attentions, CVPR 2022, arXiv 2106.03959, in 3D
as in the invertible diffusion U-Net (Jain and Teli 2025, arXiv 2504.10883). Not the Lipschitz-constrained residual
attention of Zha et al., 2021, arXiv 2106.09003, which is inverted by iteration only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_invertible.autograd.module import InvertibleModule, State

__all__ = ["CheckerboardAttention"]


class CheckerboardAttention(InvertibleModule):
    r"""Mix half of the voxels by attention weights that are computed from the other half, which stays as it is.

    ``forward``: :math:`(\dots, x) \mapsto (\dots, y)` with :math:`y_a = x_a,\; y_b = (A(x_a) + c I)\, x_b`, where a and
    b are the two colours of a checkerboard. ``inverse``: the same :math:`A(y_a)`, and
    :math:`x_b = (A + c I)^{-1} y_b`. The rows of A are positive and sum to one, so :math:`c > 1` makes the matrix
    invertible; its condition number (maximum norm) is at most :math:`(c + 1) / (c - 1)`.

    - ``form="channel"``: A is C x C and mixes the channels of each voxel, which no spatial mask disturbs: the inverse
      is exact. :math:`A = \mathrm{softmax}(\cos(W_q x_a, W_k x_a) / s)` with the cosines over the voxels: all that is
      needed of the voxels is their C x C matrix of second moments. For volumes of any size.
    - ``form="token"``: A is N/2 x N/2 and mixes the voxels b in each channel, with the queries and keys of the voxels
      a: :math:`A = \mathrm{softmax}(Q K^T / (s \sqrt{C}))`. Its memory is that matrix; for grids up to about 16^3. If
      one colour has a voxel more than the other, its last one takes no part.

    In a chain: saves nothing, recomputes A and one product. Error: that of one matrix inverse of the condition number
    above, in at least float32, also under autocast.

    Args:
        channels: C.
        parity: 0 or 1, the sum of a voxel's indices modulo 2 of colour a. Alternate it from one module to the next, so
            that every voxel is mixed.
        form: "channel" or "token".
        offset: c in the beginning, above 1; it is learned as :math:`1 + \mathrm{softplus}`. The published code has
            1.01, which costs two more digits.
        scale: s in the beginning, above 0; it is learned as :math:`e^{\cdot}`.

    Shapes: ``(B, C, *spatial)`` to the same, any number of dimensions and any size; of a state of several tensors the
    last.

    Raises:
        ValueError: an argument out of its range, or a state with other channels.
    """

    def __init__(
        self, channels: int, *, parity: int = 0, form: str = "channel", offset: float = 1.5, scale: float = 1.0
    ) -> None:
        super().__init__()
        if parity not in (0, 1):
            raise ValueError(f"CheckerboardAttention: parity must be 0 or 1, got {parity!r}. Choose one.")
        if form not in ("channel", "token"):
            raise ValueError(f'CheckerboardAttention: form must be "channel" or "token", got {form!r}. Choose one.')
        if not offset > 1 or not scale > 0:
            raise ValueError(
                f"CheckerboardAttention: offset must be above 1 and scale above 0, got {offset} and {scale}. Use for "
                "example offset=1.5, scale=1.0."
            )
        self.channels = channels
        self.parity = parity
        self.form = form
        self.query = nn.Linear(channels, channels, bias=False)
        self.key = nn.Linear(channels, channels, bias=False)
        self.raw_offset = nn.Parameter(torch.tensor(offset - 1).expm1().log())
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Mix the voxels b."""
        return self._mixed(state, inverse=False)

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """Undo the mixing."""
        return self._mixed(state, inverse=True)

    def _mixed(self, state: tuple[Tensor, ...], inverse: bool) -> State:
        *rest, x = state
        if x.shape[1] != self.channels:
            raise ValueError(
                f"CheckerboardAttention: built for channels={self.channels}, got a state of {x.shape[1]} channels. "
                "Build it for the channels that it is given."
            )
        with torch.autocast(x.device.type, enabled=False):
            exact = x.to(torch.promote_types(x.dtype, torch.float32)).flatten(2)  # (B, C, N)
            stays = checkerboard(x.shape[2:], x.device).flatten() == self.parity
            mix = self._by_channel if self.form == "channel" else self._by_token
            y = mix(exact, stays, inverse).view(x.shape).to(x.dtype)
        return (*rest, y) if rest else y

    def _by_channel(self, x: Tensor, stays: Tensor, inverse: bool) -> Tensor:
        a = x * stays
        moments = a @ a.mT / stays.sum().clamp(min=1)  # (B, C, C)
        query, key = (layer.weight.to(x.dtype) for layer in (self.query, self.key))
        products = query @ moments @ key.T
        squares = [((w @ moments) * w).sum(2) + 1e-12 for w in (query, key)]  # of the norms of queries and keys
        cosines = products * squares[0].rsqrt()[:, :, None] * squares[1].rsqrt()[:, None]
        return torch.where(stays, x, self._matrix(cosines, inverse) @ x)

    def _by_token(self, x: Tensor, stays: Tensor, inverse: bool) -> Tensor:
        a, b = stays.nonzero()[:, 0], (~stays).nonzero()[:, 0]
        pairs = min(len(a), len(b))
        a, b = a[:pairs], b[:pairs]
        tokens = x[:, :, a].mT
        query, key = (F.linear(tokens, layer.weight.to(x.dtype)) for layer in (self.query, self.key))
        matrix = self._matrix(query @ key.mT / self.channels**0.5, inverse)  # (B, N/2, N/2)
        return x.index_copy(2, b, (matrix @ x[:, :, b].mT).mT)

    def _matrix(self, scores: Tensor, inverse: bool) -> Tensor:
        """A + c I, or its inverse."""
        attention = (scores / self.log_scale.to(scores.dtype).exp()).softmax(dim=-1)
        identity = torch.eye(scores.shape[-1], dtype=scores.dtype, device=scores.device)
        matrix = attention + (1 + F.softplus(self.raw_offset.to(scores.dtype))) * identity
        return torch.linalg.inv(matrix) if inverse else matrix

    def extra_repr(self) -> str:
        return f"parity={self.parity}, form={self.form!r}"


def checkerboard(size: torch.Size, device: torch.device) -> Tensor:
    """The sum of the indices modulo 2, of shape ``size``."""
    axes = [torch.arange(n, device=device) for n in size]
    return sum(axis.view(-1, *(1,) * (len(axes) - 1 - dim)) for dim, axis in enumerate(axes)) % 2  # type: ignore[return-value]
