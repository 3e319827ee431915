"""Translation learned from pairs of images: pix2pix in both directions.

Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, CVPR 2017, arXiv 1611.07004; van der
Ouderaa and Worrall, RevGAN, CVPR 2019, arXiv 1902.02729, equations 5 to 7.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from monai_invertible.losses.patch_logits_loss import PatchLogitsLoss
from monai_invertible.losses.translation_loss import TranslationLoss

__all__ = ["PairedTranslationLoss"]


class PairedTranslationLoss(TranslationLoss):
    r"""``l1_weight * (|F(x) - y| + |G(y) - x|)`` plus the adversarial terms of both directions.

    Discriminators "x" and "y" see an image together with what it was made from: :math:`D_Y` the channels of x and
    then of y or F(x), :math:`D_X` those of y and then of x or G(y). Equation 6 prints the generated term without this
    condition; the right one is
    :math:`E[\log D_Y(x, y)] + E[\log(1 - D_Y(x, F(x)))]`, of which the generator lowers
    :math:`-\log D_Y(x, F(x))`. Without discriminators this is the supervised loss in both directions.

    Terms: ``l1_x_loss``, ``l1_y_loss``, ``adversarial_x_loss``, ``adversarial_y_loss``; ``discriminator_x_loss``,
    ``discriminator_y_loss``. Each carries the name of the domain whose images it is about.

    Args:
        l1_weight: of the absolute error.
        adversarial: see :class:`TranslationLoss`; None for :class:`PatchLogitsLoss`.

    Shapes: ``(B, C_x, *spatial)`` and ``(B, C_y, *spatial)`` of one size.

    Raises:
        ValueError: images of different sizes, or discriminators of other names.
    """

    def __init__(self, l1_weight: float = 100.0, *, adversarial: nn.Module | None = None) -> None:
        super().__init__(PatchLogitsLoss() if adversarial is None else adversarial)
        self.l1_weight = l1_weight

    def reconstruction(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            "l1_x_loss": self.l1_weight * self._l1(images, "fake_x", "x"),
            "l1_y_loss": self.l1_weight * self._l1(images, "fake_y", "y"),
        }

    def judged(self, images: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        x, y = images["x"], images["y"]
        if x.shape[2:] != y.shape[2:]:
            raise ValueError(
                f"PairedTranslationLoss: x and y must be of one size for a discriminator, got {tuple(x.shape[2:])} and "
                f"{tuple(y.shape[2:])}. Resample one to the grid of the other."
            )
        return {
            "x": (torch.cat((y, x), 1), torch.cat((y, images["fake_x"]), 1)),
            "y": (torch.cat((x, y), 1), torch.cat((x, images["fake_y"]), 1)),
        }
