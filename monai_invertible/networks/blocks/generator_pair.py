"""Two generators, from a domain X to a domain Y and back, as one network with one call."""

from __future__ import annotations

from torch import Tensor

from monai_invertible.networks.scripting import ScriptedByTrace

__all__ = ["GeneratorPair"]


class GeneratorPair(ScriptedByTrace):
    """``pair(x)`` is F(x), from X to Y; ``pair(y, direction="inverse")`` is G(y), from Y to X.

    One ``forward`` for both, because wrappers such as ``DistributedDataParallel``, inferers and exporters know no
    other method. A subclass defines :meth:`translate` and :meth:`translate_back`. TorchScript has F alone.

    Shapes: ``(B, C_x, *spatial)`` to ``(B, C_y, *spatial)``, and back.

    Raises:
        ValueError: another direction than "forward" and "inverse".
    """

    def translate(self, x: Tensor) -> Tensor:
        """F, from X to Y."""
        raise NotImplementedError(f"{type(self).__name__}: define translate(x).")

    def translate_back(self, y: Tensor) -> Tensor:
        """G, from Y to X."""
        raise NotImplementedError(f"{type(self).__name__}: define translate_back(y).")

    def forward(self, x: Tensor, direction: str = "forward") -> Tensor:
        """F or G."""
        if direction not in ("forward", "inverse"):
            raise ValueError(
                f'{type(self).__name__}: direction must be "forward" or "inverse", got {direction!r}. Choose one.'
            )
        return self.translate(x) if direction == "forward" else self.translate_back(x)
