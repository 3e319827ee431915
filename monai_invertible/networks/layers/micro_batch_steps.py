"""What a chain does with the micro-batches of a batch, piece by piece.

The state holds the pieces last. Moments, the means and variances of what a norm will normalise, stand below them: one
small tensor a norm, two rows a piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from monai_invertible.autograd.module import Step
from monai_invertible.networks.layers.coupling import ShiftStep
from monai_invertible.networks.layers.invertible_batch_norm import InvertibleBatchNorm
from monai_invertible.networks.layers.layerwise import LayerwiseBranch

__all__ = ["MomentsStep", "NormaliseStep", "PieceShiftStep", "PieceStep"]


class PieceStep(Step):
    """A step that does not see the last ``after`` tensors of the state."""

    def __init__(self, step: Step, after: int) -> None:
        super().__init__(step.module, step.inverse)
        self.step = step
        self.after = after
        self.kept = 0  # tensors that the step has kept, which stand behind the state on the way back

    def forward(self, *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        seen, rest = self._seen(state)
        return (*self.step.forward(*seen, **context), *rest)

    def invert(self, *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        seen, rest = self._seen(state[: len(state) - self.kept])
        return (*self.step.invert(*seen, *state[len(state) - self.kept :], **context), *rest)

    def keep(self, *state: Tensor) -> tuple[Tensor, ...]:
        found = self.step.keep(*self._seen(state)[0])
        self.kept = len(found)
        return found

    def recompute(
        self, evaluate: Callable[..., Any], capture: Callable[..., Any], *state: Tensor, **context: Any
    ) -> tuple[Tensor, ...]:
        seen, rest = self._seen(state[: len(state) - self.kept])
        kept = state[len(state) - self.kept :]

        def capture_seen(function: Callable[..., Any], *inputs: Tensor | None, **context: Any) -> Any:
            return capture(lambda *s, **c: function(*s[: len(inputs)], **c), *inputs, *(None for _ in rest), **context)

        return (*self.step.recompute(evaluate, capture_seen, *seen, *kept, **context), *rest)

    def _seen(self, state: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        end = len(state) - self.after
        return state[:end], state[end:]


class MomentsStep(Step):
    """Mean and variance of what ``function`` computes from one piece, as two more rows of the tensor with the moments.

    That stands below the last ``above`` tensors of the state; the first piece pushes it. The inverse takes them away,
    and keeps them for the way back: they need not be those of what is left (see :class:`InvertibleBatchNorm`).
    """

    def __init__(
        self, module: nn.Module, function: Callable[..., Tensor], index: int, above: int, inverse: bool
    ) -> None:
        super().__init__(module, inverse)
        self.function = function
        self.first = index == 0
        self.above = above

    def forward(self, *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        return self._removed(state) if self.inverse else self._added(state)

    def keep(self, *state: Tensor) -> tuple[Tensor, ...]:
        return (state[len(state) - self.above - 1][-2:].clone(),) if self.inverse else ()

    def invert(self, *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        return self._pushed(state[:-1], state[-1]) if self.inverse else self._removed(state)

    def _added(self, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = self.function(*state)
        variance, mean = torch.var_mean(x, dim=[0, *range(2, x.ndim)], correction=0)
        return self._pushed(state, torch.stack((mean, variance)))

    def _pushed(self, state: tuple[Tensor, ...], moments: Tensor) -> tuple[Tensor, ...]:
        end = len(state) - self.above
        if self.first:
            return (*state[:end], moments, *state[end:])
        return (*state[: end - 1], torch.cat((state[end - 1], moments)), *state[end:])

    def _removed(self, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        end = len(state) - self.above
        left = () if self.first else (state[end - 1][:-2].clone(),)
        return (*state[: end - 1], *left, *state[end:])


class NormaliseStep(Step):
    """Normalise one piece with the moments of all, which stand below the pieces."""

    def __init__(self, norm: InvertibleBatchNorm, index: int, pieces: int, inverse: bool) -> None:
        super().__init__(norm, inverse)
        self.index = index - pieces
        self.pieces = pieces

    def forward(self, *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        return self._normalised(state, back=self.inverse)

    def invert(self, *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        return self._normalised(state, back=not self.inverse)

    def before_norm(self, *state: Tensor) -> Tensor:
        """The piece."""
        return state[self.index]

    def _normalised(self, state: tuple[Tensor, ...], back: bool) -> tuple[Tensor, ...]:
        norm: Any = self.module
        mean, variance, count = combine(state[-self.pieces - 1], state[-self.pieces :])
        pieces = list(state)
        if back:
            pieces[self.index] = norm.denormalise(pieces[self.index], mean, variance)
        else:
            if self.index == -self.pieces:
                norm.track(mean, variance, count)
            pieces[self.index] = norm.normalise(pieces[self.index], mean, variance)
        return tuple(pieces)


class PieceShiftStep(ShiftStep):
    """Move a half of one piece by a branch of the other half; the moments of the branch's norms stand below."""

    def __init__(self, branch: LayerwiseBranch, first: bool, index: int, pieces: int, inverse: bool) -> None:
        pair = 2 * (index - pieces)
        super().__init__(branch, *((pair, inverse, pair + 1) if first else (pair + 1, inverse, pair)))
        self.index = index
        self.pieces = pieces

    def shift(self, *state: Tensor, **context: Any) -> Tensor:
        branch: Any = self.module
        units = branch.layers_of_units()
        if self.index == 0:
            for (_, norm, _), statistics in zip(units, self._moments(state, len(units)), strict=True):
                norm.track(*statistics)
        return self._through(len(units), state)

    def before_norm(self, unit: int, *state: Tensor) -> Tensor:
        """What the norm of a unit normalises, when the units before it know their moments."""
        branch: Any = self.module
        known = 0 if self.index == 0 else 1  # the moments of the unit itself, of the pieces before
        return branch.layers_of_units()[unit][0](self._through(unit, state, known))

    def _through(self, units: int, state: tuple[Tensor, ...], above: int = 0) -> Tensor:
        """What the first units of the branch make of the half that is read."""
        branch: Any = self.module
        x = state[self.source]
        moments = self._moments(state, units, above)
        for (conv, norm, act), (mean, variance, _) in zip(branch.layers_of_units(), moments, strict=False):
            x = act(norm.normalise(conv(x), mean, variance))
        return x

    def _moments(self, state: tuple[Tensor, ...], units: int, above: int = 0) -> list[tuple[Tensor, Tensor, int]]:
        """Of the branch's first units, for the batch; above them stand ``above`` more, and the pieces."""
        pieces = state[-2 * self.pieces + self.source % 2 :: 2]
        end = len(state) - 2 * self.pieces - above
        return [combine(moments, pieces) for moments in state[end - units : end]]


def combine(moments: Tensor, pieces: Sequence[Tensor]) -> tuple[Tensor, Tensor, int]:
    """Mean, variance and count of all from the rows mean, variance, mean, ... of the pieces."""
    means, variances = moments[::2], moments[1::2]
    counts = [len(x) * prod(x.shape[2:]) for x in pieces]
    total = sum(counts)
    share = means.new_tensor([count / total for count in counts])[:, None]
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0), total
