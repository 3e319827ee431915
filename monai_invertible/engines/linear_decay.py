"""The learning rate of pix2pix, CycleGAN and RevGAN: constant, then linearly towards zero."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["linear_decay"]


def linear_decay(constant: int, decay: int) -> Callable[[int], float]:
    """The factor of the learning rate in each epoch, for ``torch.optim.lr_scheduler.LambdaLR``.

    1 in the first ``constant`` epochs, then ``decay / (decay + 1)`` down to ``1 / (decay + 1)`` in ``decay`` further
    ones; it would be 0 in the epoch after the last, and stays there. The papers have 100 and 100.

    Raises:
        ValueError: a negative number of epochs.
    """
    if constant < 0 or decay < 0:
        raise ValueError(f"linear_decay: epochs must not be negative, got {constant} and {decay}. Use 0 or more.")

    def factor(epoch: int) -> float:
        return max(0.0, 1.0 - max(0, epoch + 1 - constant) / (decay + 1))

    return factor
