"""Batch normalisation as an invertible layer: its statistics become part of the state.

Hascoet et al., Layer-Wise Invertibility for Extreme Memory Cost Reduction of CNN Training, 2019, arXiv 1910.11127,
equations 20 and 27.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from monai_invertible.autograd.module import InvertibleModule, State, Step

__all__ = ["InvertibleBatchNorm"]


class InvertibleBatchNorm(InvertibleModule):
    r"""Normalise each channel over the batch, with a scale that is bounded away from zero.

    ``forward``, in training: :math:`(\dots, x) \mapsto (\dots, \mu, \sigma^2, y)` with
    :math:`y = (|\gamma| + \epsilon_i) (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta`: the batch's mean and (biased)
    variance stay in the stack of tensors, 2 C numbers, because nobody could find them in y.
    ``inverse``: :math:`(\dots, \mu, \sigma^2, y) \mapsto (\dots, x)` with
    :math:`x = \sqrt{\sigma^2 + \epsilon}\,(y - \beta) / (|\gamma| + \epsilon_i) + \mu`.
    In evaluation the running statistics take their place, and the stack stays as it is.

    In a chain: saves nothing else, recomputes itself; the running statistics are updated once a step. The inverse, in
    training, keeps the statistics that it takes from the stack: a state that is not exactly an output of the forward
    (an edited latent, or one that dropout changed) has others, and could not be found again without. Error: a rounding
    of each term; but the error that it is given grows by :math:`\sqrt{\sigma^2 + \epsilon} / (|\gamma| + \epsilon_i)`
    in each channel.

    Differences from the paper: it prints :math:`|\gamma + \epsilon_i|`, which does not keep the scale from zero; its
    published code never passes :math:`\epsilon_i` on, inverts with the unbiased deviation and has no running
    statistics.

    Args:
        num_features: C.
        eps: :math:`\epsilon`.
        momentum: of the running statistics, as in ``torch.nn.BatchNorm2d``.
        invertible_eps: :math:`\epsilon_i`, at least 0; with 0 a channel whose :math:`\gamma` is zero has no inverse.
        push_statistics: False leaves the stack as it is also in training, for a block that wants one tensor; it is
            ordinary batch normalisation then, and only its evaluation can be inverted.

    Shapes: ``(B, C, *spatial)``; of a state of several tensors the last.

    Raises:
        ValueError: a negative ``invertible_eps``.
        RuntimeError: an inverse that does not exist: a zero scale, or a training without its statistics.
    """

    def __init__(
        self,
        num_features: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        invertible_eps: float = 0.1,
        push_statistics: bool = True,
    ) -> None:
        super().__init__()
        if invertible_eps < 0:
            raise ValueError(
                f"InvertibleBatchNorm: invertible_eps must be at least 0, got {invertible_eps}. Use for example 0.1."
            )
        self.eps = eps
        self.momentum = momentum
        self.invertible_eps = invertible_eps
        self.push_statistics = push_statistics
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Normalise."""
        *rest, x = state
        scale = self.weight.abs() + self.invertible_eps
        running_mean: Any = self.running_mean
        running_var: Any = self.running_var
        y = F.batch_norm(x, running_mean, running_var, scale, self.bias, self.training, self.momentum, self.eps)
        if self.training and self.push_statistics:
            variance, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
            return (*rest, mean, variance, y)
        return (*rest, y) if rest else y

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """Undo, with the statistics of the forward."""
        *rest, y = state
        mean: Any = self.running_mean
        variance: Any = self.running_var
        if self.training:
            if not self.push_statistics:
                raise RuntimeError(
                    "InvertibleBatchNorm: the inverse in training needs the batch's statistics, got "
                    "push_statistics=False. Build it with push_statistics=True, or call eval()."
                )
            *rest, mean, variance = rest
        x = self.denormalise(y, mean, variance)
        return (*rest, x) if rest else x

    def steps(self, inverse: bool = False) -> Iterable[Step]:
        """In training, the inverse keeps the statistics."""
        return (_Denormalise(self, True) if inverse else Step(self),)

    def normalise(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """``x`` ``(B, C, *spatial)`` by given statistics ``(C,)``, into which gradients flow, too."""
        factor = (self.weight.abs() + self.invertible_eps) / (variance + self.eps).sqrt()
        per_channel = (-1, *(1,) * (x.ndim - 2))
        return torch.addcmul((self.bias - mean * factor).view(per_channel), x, factor.view(per_channel)).to(x.dtype)

    def denormalise(self, y: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        """Undo :meth:`normalise`."""
        scale = self.weight.abs() + self.invertible_eps
        if self.invertible_eps == 0 and (scale == 0).any():
            raise RuntimeError(
                "InvertibleBatchNorm: with invertible_eps=0 no weight may be zero to be inverted, got weight 0 in "
                f"channel {(scale == 0).nonzero()[0].item()}. Use invertible_eps=0.1."
            )
        factor = (variance + self.eps).sqrt() / scale
        per_channel = (-1, *(1,) * (y.ndim - 2))
        return ((y - self.bias.view(per_channel)) * factor.view(per_channel) + mean.view(per_channel)).to(y.dtype)

    @torch.no_grad()
    def track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Update the running statistics by those of a batch with ``count`` values in each channel."""
        running_mean: Any = self.running_mean
        running_var: Any = self.running_var
        running_mean.lerp_(mean, self.momentum)
        running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, eps={self.eps}, invertible_eps={self.invertible_eps}"


class _Denormalise(Step):
    """The inverse of a norm; on the way back it needs the statistics that stood in its input."""

    module: InvertibleBatchNorm

    def keep(self, *state: Tensor) -> tuple[Tensor, ...]:
        return state[-3:-1] if self._has_statistics else ()

    def invert(self, *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        if not self._has_statistics:
            return super().invert(*state, **context)
        *rest, x, mean, variance = state
        return (*rest, mean, variance, self.module.normalise(x, mean, variance))

    @property
    def _has_statistics(self) -> bool:
        return self.module.training and self.module.push_statistics
