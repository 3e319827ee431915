r"""A chain on the micro-batches of one batch: what a step needs for a moment is that of a part of the batch.

The peak of a reversible network with batch normalisation is in its branches: while one is differentiated, its
activations and their gradients live beside the state and the state's gradient. Here the state is the batch in pieces,
and a branch is recomputed and differentiated for one piece after the other. Statistics are put together from those of
the pieces, so that nothing changes but the memory and the time: a batch norm within a branch needs the layers before it
twice, once for its statistics and once to go on.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from monai_invertible.autograd.module import InvertibleModule, State, Step, observed
from monai_invertible.autograd.sequential import InvertibleSequential
from monai_invertible.networks.layers.coupling import AdditiveCoupling
from monai_invertible.networks.layers.invertible_batch_norm import InvertibleBatchNorm
from monai_invertible.networks.layers.layerwise import LayerwiseBranch
from monai_invertible.networks.layers.micro_batch_steps import (
    MomentsStep,
    NormaliseStep,
    PieceShiftStep,
    PieceStep,
)
from monai_invertible.networks.layers.splitting import ChannelSplit

__all__ = ["MicroBatchedSequential"]


class MicroBatchedSequential(InvertibleSequential):
    r"""Invertible layers in order, on a batch that comes in n pieces.

    ``forward``: :math:`(x_1, \dots, x_n) \mapsto (\dots, y_1, \dots, y_n)`, where :math:`[y_1; \dots; y_n]` is what
    :class:`InvertibleSequential` makes of the whole batch :math:`[x_1; \dots; x_n]`; before it stand the moments of its
    batch norms, a small tensor each. ``inverse``: the same backwards.

    Layers treat one piece after the other; an :class:`InvertibleBatchNorm`, as a layer or in a
    :class:`LayerwiseBranch`, normalises with the statistics of all. Within a branch nothing is inverted, so the error
    is that of the couplings alone. In evaluation (also of a norm alone), and unless ``backprop="invert"``, the whole
    batch is one piece: :attr:`pieces` tells how many the chain takes.

    Args:
        layers: invertible modules.
        micro_batches: n.
        backprop: "invert", "checkpoint" or "store".

    Shapes: ``pieces`` tensors ``(B_i, C, *spatial)``.

    Raises:
        RuntimeError: a hook on a layer, in forward.
        ValueError: another layer with a batch norm inside, whose statistics would be those of a piece; or not as many
            tensors as pieces.
    """

    def __init__(self, *layers: InvertibleModule, micro_batches: int = 1, backprop: str = "invert") -> None:
        super().__init__(*layers, backprop=backprop)
        if micro_batches < 1:
            raise ValueError(
                f"MicroBatchedSequential: micro_batches must be at least 1, got {micro_batches}. Use 1 for the whole "
                "batch."
            )
        self.micro_batches = micro_batches
        if micro_batches > 1:
            for layer in layers:
                check_statistics(layer)

    @property
    def pieces(self) -> int:
        """How many tensors the chain takes now."""
        norms = (m for m in self.modules() if isinstance(m, InvertibleBatchNorm))
        together = not self.training or self.backprop != "invert" or not all(norm.training for norm in norms)
        return 1 if together else self.micro_batches

    def forward(self, *state: Tensor, **context: Any) -> State:
        """Map the pieces through the layers."""
        if len(state) != self.pieces:
            raise ValueError(
                f"MicroBatchedSequential: the batch must come in {self.pieces} pieces, got {len(state)} tensors. Give "
                "x.tensor_split(chain.pieces)."
            )
        return super().forward(*state, **context)

    def steps(self, inverse: bool = False) -> list[Step]:
        if self.pieces == 1:
            return super().steps(inverse)
        for module in self.modules():
            if module is not self and observed(module):
                raise RuntimeError(
                    f"MicroBatchedSequential: {type(module).__name__} has a hook, which micro-batches would pass by or "
                    "call several times. Remove it, or use micro_batches=1."
                )
        steps: list[Step] = []
        split: ChannelSplit | None = None  # how the pieces are split at present
        for layer in reversed(list(self)) if inverse else self:
            hybrid = layer if isinstance(layer, AdditiveCoupling) and is_hybrid(layer) else None
            wanted: Any = hybrid.split if hybrid else None
            if split is not None and (wanted is None or wanted.split != split.split):
                steps += in_pieces(split.steps(inverse=True), self.pieces, width=2)
                split = None
            if hybrid is not None:
                if split is None and wanted is not None:
                    steps += in_pieces(wanted.steps(), self.pieces)
                    split = wanted
                steps += shift_steps(hybrid, self.pieces, inverse)
            elif isinstance(layer, InvertibleBatchNorm):
                steps += norm_steps(layer, self.pieces, inverse)
            else:
                steps += in_pieces(layer.steps(inverse), self.pieces)
        return steps if split is None else [*steps, *in_pieces(split.steps(inverse=True), self.pieces, width=2)]


def check_statistics(layer: InvertibleModule) -> None:
    """Raise ValueError if the layer takes statistics over a batch in a way that pieces would change."""
    if isinstance(layer, InvertibleBatchNorm) or (isinstance(layer, AdditiveCoupling) and is_hybrid(layer)):
        return
    if any(isinstance(m, (_BatchNorm, InvertibleBatchNorm)) for m in layer.modules()):
        raise ValueError(
            f"MicroBatchedSequential: {type(layer).__name__} has a batch norm inside, whose statistics would be those "
            "of a micro-batch. Use InvertibleBatchNorm as a layer, couplings of LayerwiseBranch, or micro_batches=1."
        )


def is_hybrid(coupling: AdditiveCoupling) -> bool:
    """Whether its branches are chains of invertible layers, and nothing else."""
    branches = [branch for branch in (coupling.f, coupling.g) if branch is not None]
    return all(isinstance(branch, LayerwiseBranch) and branch.shift is None for branch in branches)


def in_pieces(steps: Iterable[Step], pieces: int, width: int = 1) -> list[Step]:
    """The steps for the first piece, for the second, and so on; a piece is ``width`` tensors."""
    steps = list(steps)
    return [PieceStep(step, width * after) for after in reversed(range(pieces)) for step in steps]


def norm_steps(norm: InvertibleBatchNorm, pieces: int, inverse: bool) -> list[Step]:
    """Push the moments of each piece below the pieces, then normalise each."""
    normalise = [NormaliseStep(norm, index, pieces, inverse) for index in range(pieces)]
    measure = [MomentsStep(norm, step.before_norm, i, pieces, inverse) for i, step in enumerate(normalise)]
    steps = [*measure, *normalise]
    return steps[::-1] if inverse else steps


def shift_steps(coupling: AdditiveCoupling, pieces: int, inverse: bool) -> list[Step]:
    """For each branch push the moments of its norms, then move one half of each piece."""
    steps: list[Step] = []
    for branch, first in ((coupling.f, True), (coupling.g, False)):
        if isinstance(branch, LayerwiseBranch):
            shifts = [PieceShiftStep(branch, first, index, pieces, inverse) for index in range(pieces)]
            for unit in range(len(branch.layers_of_units())):
                steps += [
                    MomentsStep(branch, partial(shift.before_norm, unit), index, 2 * pieces, inverse)
                    for index, shift in enumerate(shifts)
                ]
            steps += shifts
    return steps[::-1] if inverse else steps
