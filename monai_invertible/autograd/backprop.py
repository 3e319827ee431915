"""How a network's activations come back in the backward pass: one switch, the same parameters and the same results."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

__all__ = ["BackpropSwitch", "set_backprop"]


class BackpropSwitch(nn.Module):
    """A module with a ``backprop`` attribute that takes one of ``backprop_modes``.

    ``"invert"`` recomputes activations from the output, ``"checkpoint"`` from the kept input of each part
    (``torch.utils.checkpoint``), ``"store"`` keeps them (plain autograd).
    """

    backprop_modes: ClassVar[tuple[str, ...]] = ("invert", "checkpoint", "store")

    @property
    def backprop(self) -> str:
        """How activations come back in the backward pass."""
        return self._backprop

    @backprop.setter
    def backprop(self, mode: str) -> None:
        self.check_backprop(mode)
        self._backprop = mode

    def check_backprop(self, mode: str) -> None:
        """Raise ValueError if the module does not know ``mode``."""
        if mode not in self.backprop_modes:
            raise ValueError(
                f"{type(self).__name__}: backprop must be one of {self.backprop_modes}, got {mode!r}. "
                "Choose one of these."
            )


def set_backprop(network: nn.Module, mode: str) -> nn.Module:
    """Switch a network, in place, between ``"invert"``, ``"checkpoint"`` and ``"store"``, and return it.

    Parameters, ``state_dict`` and results stay the same.

    Raises:
        ValueError: a mode that a part of the network does not have, or a network without anything to switch; nothing
            is switched then.
    """
    switches = [m for m in network.modules() if isinstance(m, BackpropSwitch)]
    if not switches:
        raise ValueError(
            f"set_backprop: {type(network).__name__} has no invertible chain to switch. "
            "Build it from InvertibleSequential."
        )
    for switch in switches:
        switch.check_backprop(mode)
    for switch in switches:
        switch.backprop = mode
    return network
