"""How far the gradients of two networks with the same parameters are apart.

The second is the oracle: the same network with ``backprop="store"``, or in double precision. The error of a parameter
is taken relative to that parameter's own gradient, so that a small one cannot hide behind a large one; yet a parameter
whose gradient is zero but for rounding (a bias before a normalisation) must not report the ratio of two roundings, so
the denominator has a floor, a fraction of the largest gradient of the network.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

__all__ = ["gradient_error"]


def gradient_error(
    network: nn.Module, oracle: nn.Module, run: Callable[[nn.Module], torch.Tensor], *, floor: float = 1e-3
) -> float:
    """Largest relative gradient error over the parameters, ``max|g - o| / max(max|o|, floor * largest max|o|)``.

    Args:
        network: the network to judge; its ``.grad`` fields are left alone.
        oracle: a network with parameters of the same names and shapes, and of the same values, as the caller sees to.
        run: calls a network and returns its scalar loss.
        floor: fraction of the oracle's largest gradient below which a gradient counts as zero.

    Returns:
        The error, a pure number. A parameter without a gradient has a gradient of zero.

    Raises:
        ValueError: the trainable parameters of the two differ in names or shapes.
    """
    gradients, exact = _gradients(network, run), _gradients(oracle, run)
    shapes = [{name: tuple(g.shape) for name, g in found.items()} for found in (gradients, exact)]
    if shapes[0] != shapes[1]:
        name = next(n for n in {**shapes[0], **shapes[1]} if shapes[0].get(n) != shapes[1].get(n))
        raise ValueError(
            f"gradient_error: both networks must have the same trainable parameters, got {name!r} with shapes "
            f"{shapes[0].get(name)} and {shapes[1].get(name)}. Load one state_dict into both."
        )
    sizes = {name: float(g.abs().max()) for name, g in exact.items() if g.numel()}
    least = floor * max(sizes.values(), default=0.0)
    errors = [float((gradients[n] - exact[n]).abs().max()) / (max(size, least) or 1.0) for n, size in sizes.items()]
    return max(errors, default=0.0)


def _gradients(network: nn.Module, run: Callable[[nn.Module], torch.Tensor]) -> dict[str, torch.Tensor]:
    named = {name: p for name, p in network.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(run(network), list(named.values()), allow_unused=True)
    zeros = (torch.zeros_like(p) if g is None else g for p, g in zip(named.values(), gradients, strict=True))
    return {name: g.double() for name, g in zip(named, zeros, strict=True)}
