r"""The step of an i-RIM that looks at the data: the machine's memory is moved by the gradient of the data term.

Putzky and Welling, Invert to Learn to Invert, NeurIPS 2019, eq. 10 and 19. It is an additive coupling: the image
estimate is read and stays, so whatever the forward operator is, the step is undone by a subtraction.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from monai_invertible.networks.layers.coupling import AdditiveCoupling

__all__ = ["GradientUpdate"]


class GradientUpdate(AdditiveCoupling):
    r"""The memory moved by the gradient of the data term, :math:`\nabla D(\eta) = A^H A \eta - A^H d`.

    ``forward``: :math:`(\eta, s) \mapsto (\eta,\; s + [\nabla D(\eta); 0])`.
    ``inverse``: :math:`(\eta, s) \mapsto (\eta,\; s - [\nabla D(\eta); 0])`.

    In a chain: saves nothing, recomputes the gradient once. Error: one rounding of the sum.

    Args:
        operator: the forward operator A; its ``data_gradient(image, **context)`` is added to the first channels of s.
        channels: channels of the whole state.
        image_channels: channels of the estimate :math:`\eta`, the first of the state.

    Context: what ``operator.data_gradient`` takes: for :class:`~monai_invertible.operators.FourierSampling`
    ``zero_filled`` :math:`A^H d`, ``mask`` and, for several coils, ``sensitivities``.

    Shapes: ``(B, C, *spatial)`` to the same, with C at least twice ``image_channels``.

    Raises:
        ValueError: s has fewer channels than the image.
    """

    def __init__(self, operator: nn.Module, channels: int, *, image_channels: int = 2) -> None:
        if channels < 2 * image_channels:
            raise ValueError(
                f"GradientUpdate: channels must be at least twice image_channels={image_channels} to hold the "
                f"gradient, got {channels}. Use channels={2 * image_channels} or more."
            )
        memory_channels = channels - image_channels
        super().__init__(None, _DataGradient(operator, memory_channels), split=(image_channels, memory_channels))


class _DataGradient(nn.Module):
    """The gradient of the data term, zero-padded to the channels of the memory."""

    def __init__(self, operator: nn.Module, channels: int) -> None:
        super().__init__()
        self.operator = operator
        self.channels = channels

    def forward(self, image: Tensor, **context: Any) -> Tensor:
        gradient = self.operator.data_gradient(image, **context)  # type: ignore[operator]
        return F.pad(gradient, (0, 0) * (image.ndim - 2) + (0, self.channels - gradient.shape[1]))
