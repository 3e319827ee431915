r"""The invertible layer of the i-RIM: a one-sided coupling in a learned orthogonal basis.

Putzky and Welling, Invert to Learn to Invert, NeurIPS 2019, section 2.2, eq. 12-15.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from monai_invertible.autograd.module import Composition, Step
from monai_invertible.networks.layers.coupling import AdditiveCoupling
from monai_invertible.networks.layers.orthogonal_convolution import OrthogonalConvolution

__all__ = ["OrthogonalCoupling"]


class OrthogonalCoupling(Composition):
    r"""A one-sided coupling between a change of basis and the way back.

    ``forward``: :math:`(x_1, x_2) = U x,\; y = U^T [x_1;\; x_2 + G(x_1)]`.
    ``inverse``: :math:`(y_1, y_2) = U y,\; x = U^T [y_1;\; y_2 - G(y_1)]`.

    Returning to the original basis keeps the order of the channels, which has a meaning in the i-RIM, for the layers
    that follow. In a chain: saves nothing, recomputes G once. Error: the rounding of two orthogonal products and one
    sum; it does not grow.

    Args:
        channels: C, of the whole state.
        g: branch from :math:`x_1` to the shape of :math:`x_2`.
        reflections: Householder reflections of U.
        split: channels of :math:`x_1` and :math:`x_2`; None for two halves.

    Shapes: ``(B, C, *spatial)`` to the same; of a state of several tensors the last.
    """

    def __init__(
        self, channels: int, g: nn.Module, *, reflections: int = 3, split: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.basis = OrthogonalConvolution(channels, reflections)
        self.coupling = AdditiveCoupling(None, g, split=split)

    def steps(self, inverse: bool = False) -> Iterable[Step]:
        return (*self.basis.steps(), *self.coupling.steps(inverse), *self.basis.steps(inverse=True))
