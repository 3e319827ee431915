"""Is it safe to train a network by inversion? Measured layer by layer, on the network and the data in question.

Gradients of an inverted chain are taken at recomputed activations. Each layer's inverse adds a rounding and enlarges
the errors that it is given, so the signal-to-noise ratio of the activations falls on the way back (Hascoet et al.,
Layer-Wise Invertibility for Extreme Memory Cost Reduction of CNN Training, 2019, arXiv 1910.11127, section 3).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from math import inf, isfinite

import torch
from torch import nn

from monai_invertible.autograd.drift import StepDrift, trace_drift
from monai_invertible.autograd.sequential import InvertibleSequential
from monai_invertible.numerics.precision import in_precision
from monai_invertible.numerics.reconstruction_report import LayerSNR, ReconstructionReport

__all__ = ["reconstruction_snr"]


def reconstruction_snr(
    network: nn.Module, run: Callable[[nn.Module], torch.Tensor], *, precision: str | None = None
) -> ReconstructionReport:
    """Signal-to-noise ratio of each activation that a network's chains recompute in one backward.

    A copy of the network is measured, with all its chains inverted: the network itself, its mode, statistics and
    gradients stay as they are. Takes the memory of stored activations: a small batch will do.

    Args:
        network: any network with an ``InvertibleSequential`` in it.
        run: calls the network that it is given, on real data best, and returns the scalar loss.
        precision: the number format to compute in, one of ``PRECISIONS``; None for that of the network.

    Returns:
        The report: ``print`` it for a verdict, ``report.draw("snr.png")`` for a picture, ``report.rows`` for numbers.

    Raises:
        ValueError: no chain in the network, or none that walked back; an unknown precision.
    """
    copied = copy.deepcopy(network)
    for chain in (m for m in copied.modules() if isinstance(m, InvertibleSequential)):
        chain.backprop = "invert"
    with in_precision(copied, precision), trace_drift(copied) as trace:
        trainable = [p for p in copied.parameters() if p.requires_grad]
        torch.autograd.grad(run(copied), trainable, allow_unused=True)
    if not trace:
        raise ValueError(
            f"reconstruction_snr: no chain of {type(network).__name__} walked back. run must call the network that it "
            "is given, with gradients enabled, and return a loss that depends on its chains."
        )
    return ReconstructionReport(type(network).__name__, rows(trace))


def rows(trace: Sequence[StepDrift]) -> list[LayerSNR]:
    """In the order of the forward, from what backward met, with what each step has lost."""
    found = [LayerSNR(drift.chain, drift.step, drift.layer, ratio(drift)) for drift in trace]
    before: dict[str, LayerSNR] = {}
    for i, row in enumerate(found):
        after = before.get(row.chain)
        if after is not None and after.step == row.step + 1 and isfinite(row.decibels) and isfinite(after.decibels):
            found[i] = LayerSNR(row.chain, row.step, row.layer, row.snr, after.decibels - row.decibels)
        before[row.chain] = row
    return found[::-1]


def ratio(drift: StepDrift) -> float:
    """Signal to noise; a signal of zero counts as one, and what is not finite as lost."""
    if not isfinite(drift.noise) or not isfinite(drift.signal):
        return 0.0
    return (drift.signal or 1.0) / drift.noise if drift.noise else inf
