"""Random chains on micro-batches: layer-wise ones and hybrids, whose statistics are those of the whole batch."""

from __future__ import annotations

import torch
from torch import nn

from monai_invertible.autograd import InvertibleModule
from monai_invertible.networks.layers import AdditiveCoupling, InvertibleBatchNorm, InvertibleLeakyReLU, LayerwiseBranch
from monai_invertible.networks.layers.micro_batches import MicroBatchedSequential
from tests.fuzz.branches import CONV
from tests.fuzz.choose import Choose

__all__ = ["micro_chain"]


class Pieces(nn.Module):
    """A chain on micro-batches as a network of whole batches."""

    def __init__(self, chain: MicroBatchedSequential) -> None:
        super().__init__()
        self.chain = chain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = self.chain(*x.tensor_split(self.chain.pieces))
        return torch.cat(state[-self.chain.pieces :]) if isinstance(state, tuple) else state


def micro_chain(choose: Choose, dims: int, size: list[int]) -> tuple[nn.Module, tuple[int, ...]]:
    """Couplings of layer-wise branches, norms and pointwise layers on two or three micro-batches."""
    shape = (choose.integer(3, 5), 4, *size)
    layers: list[InvertibleModule] = []
    for _ in range(choose.integer(1, 4)):
        kind = choose.name({"hybrid": 3, "invertible batch norm": 2, "coupling": 2, "invertible leaky relu": 1})
        if kind == "hybrid":
            layers.append(AdditiveCoupling(*(LayerwiseBranch(dims, 2, choose.integer(1, 2)) for _ in "FG")))
        elif kind == "coupling":
            layers.append(AdditiveCoupling(CONV[dims - 1](2, 2, 1), None))
        else:
            layers.append(InvertibleBatchNorm(4) if "norm" in kind else InvertibleLeakyReLU(0.3))
    chain = MicroBatchedSequential(*layers, micro_batches=choose.integer(2, 3))
    return Pieces(chain), shape
