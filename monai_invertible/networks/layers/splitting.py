"""Split the last tensor of a state along its channels, merge the last two, or let them change places."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from monai_invertible.autograd.memory import own_memory
from monai_invertible.autograd.module import InvertibleModule, State, Step, plain_only

__all__ = ["ChannelSplit", "Swap"]


class ChannelSplit(InvertibleModule):
    r"""One tensor as two.

    ``forward``: :math:`(\dots, x) \mapsto (\dots, x_1, x_2)` with :math:`x = [x_1; x_2]` along the channels.
    ``inverse``: :math:`(\dots, x_1, x_2) \mapsto (\dots, [x_1; x_2])`.

    Saves nothing, recomputes nothing, exact. In a chain, a merge followed by the same split is left out.

    Args:
        split: channels of :math:`x_1` and :math:`x_2`; None for two halves.
        who: the class named in errors, if the split is a part of another layer.

    Shapes: ``(B, C, *spatial)`` to ``(B, C1, *spatial)`` and ``(B, C2, *spatial)``.

    Raises:
        ValueError: the channels do not split as asked.
    """

    def __init__(self, split: Sequence[int] | None = None, *, who: str = "ChannelSplit") -> None:
        super().__init__()
        self.who = who
        self.split = None if split is None else tuple(split)
        if self.split is not None and (len(self.split) != 2 or min(self.split) < 1):
            raise ValueError(
                f"{self.who}: split must be two positive channel counts, got {self.split}. "
                "Use for example split=(2, 3)."
            )

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Split the last tensor of the state."""
        *rest, x = state
        channels = x.shape[1]
        if self.split is None and channels % 2:
            raise ValueError(
                f"{self.who}: channels must be even to split in halves, got {channels}. "
                f"Use split=({channels // 2}, {channels - channels // 2})."
            )
        sizes = self.split or (channels // 2, channels // 2)
        if sum(sizes) != channels:
            raise ValueError(
                f"{self.who}: split={sizes} needs {sum(sizes)} channels, got {channels}. Choose two sizes that add "
                f"up to {channels}."
            )
        return (*rest, *torch.split(x, list(sizes), dim=1))

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """Concatenate the last two tensors of the state."""
        *rest, x1, x2 = state
        merged = torch.cat((x1, x2), dim=1)
        return (*rest, merged) if rest else merged

    def steps(self, inverse: bool = False) -> Iterable[Step]:
        return (_SplitStep(self, inverse),)


class _SplitStep(Step):
    """Merges so that the gradients of the two parts are not views of the merged one, which could then be freed only
    when both are used.
    """

    def forward(self, *state: Tensor, **context: Any) -> tuple[Tensor, ...]:
        if self.inverse and not plain_only() and not torch.compiler.is_compiling():
            state = (*state[:-2], *(x.view_as(x) for x in state[-2:]))
            for x in state[-2:]:
                if x.requires_grad:
                    x.register_hook(_own_memory)  # of the views: it runs before any earlier step's backward
        return super().forward(*state, **context)

    def cancels(self, following: Step) -> bool:
        return (
            isinstance(following, _SplitStep)
            and self.inverse
            and not following.inverse
            and self.module.split == following.module.split
        )


def _own_memory(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else own_memory(gradient)


class Swap(InvertibleModule):
    r"""The last two tensors change places.

    ``forward`` and ``inverse``: :math:`(\dots, x_1, x_2) \mapsto (\dots, x_2, x_1)`.

    Saves nothing, recomputes nothing, exact.

    Shapes: any.
    """

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Exchange."""
        *rest, x1, x2 = state
        return (*rest, x2, x1)

    def inverse(self, *state: Tensor, **context: Any) -> State:
        """Exchange."""
        return self(*state)
