"""How a network's activations come back in the backward pass: one switch, the same parameters and the same results."""

from __future__ import annotations

from torch import nn

__all__ = ["check_backprop", "set_backprop"]

MODES = ("invert", "checkpoint", "store")


def check_backprop(owner: object, mode: str, allowed: tuple[str, ...] = MODES) -> str:
    """Return ``mode`` if ``owner`` knows it.

    Raises:
        ValueError: it does not.
    """
    if mode not in allowed:
        raise ValueError(f"{type(owner).__name__}: backprop must be one of {allowed}, got {mode!r}. Choose one of these.")
    return mode


def set_backprop(network: nn.Module, mode: str) -> nn.Module:
    """Switch a network between ``"invert"``, ``"checkpoint"`` and ``"store"`` in place, and return it.

    Every module with a ``backprop`` attribute (each chain, each network) is switched; parameters and ``state_dict`` stay as they are.

    Raises:
        ValueError: an unknown mode, a mode that the network does not have, or a network without any switch.
    """
    modules = [m for m in network.modules() if hasattr(m, "backprop")]
    if not modules:
        raise ValueError(f"set_backprop: {type(network).__name__} has no invertible chain to switch. Build it from InvertibleSequential.")
    for module in modules:
        check_backprop(module, mode, getattr(module, "backprop_modes", MODES))
    for module in modules:
        module.backprop = mode  # type: ignore[assignment]
    return network
