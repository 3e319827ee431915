"""The largest patch that fits into a memory budget: plan a training before there is a machine to run it."""

from __future__ import annotations

from collections.abc import Callable

from monai_invertible.memory.report import MemoryReport, readable

__all__ = ["largest_patch"]


def largest_patch(
    step: Callable[[int], MemoryReport], budget: float, *, multiple_of: int = 16, up_to: int = 1024
) -> int:
    """Edge of the largest patch whose training step stays within ``budget`` bytes, by bisection.

    A larger patch must never need less memory. What the estimate does not count must be subtracted from a card's memory
    first: the CUDA context, the workspace of the kernels and the reserve of the allocator, often 1 to 2 GiB.

    Args:
        step: from an edge in voxels to the report of a training step with such a patch. A lambda may fix one dimension,
            set the batch size, or give a variational branch its size.
        budget: bytes for the peak of the step.
        multiple_of: the edge is a multiple of this.
        up_to: the largest edge to try.

    Returns:
        the edge in voxels.

    Raises:
        ValueError: a budget that even a patch of ``multiple_of`` exceeds, or ``multiple_of`` not in 1 to ``up_to``.

    Example::

        card = 12 * 2**30
        edge = largest_patch(lambda n: estimate_training_step(network, (1, 4, n, n, n)), budget=card - 1.5 * 2**30)
    """
    if not 1 <= multiple_of <= up_to:
        raise ValueError(
            f"largest_patch: multiple_of must be from 1 to up_to, got {multiple_of} and {up_to}. Use for example "
            "multiple_of=16, up_to=512."
        )
    fits, too_large = 0, up_to // multiple_of + 1
    while too_large - fits > 1:
        middle = (fits + too_large) // 2
        peak = step(middle * multiple_of).peak
        fits, too_large = (middle, too_large) if peak <= budget else (fits, middle)
    if not fits:
        raise ValueError(
            f"largest_patch: the budget must hold a patch with an edge of {multiple_of}, which needs "
            f"{readable(peak)}, got {readable(budget)}. Use a smaller network or batch, or another backprop."
        )
    return fits * multiple_of
