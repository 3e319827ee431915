"""Translation learned from two sets of images without pairs: CycleGAN.

Zhu et al., Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV 2017, arXiv
1703.10593; least squares: Mao et al., 2017, arXiv 1611.04076; van der Ouderaa and Worrall, RevGAN, CVPR 2019, arXiv
1902.02729, equations 10 to 13.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from monai.losses.adversarial_loss import PatchAdversarialLoss
from torch import Tensor, nn

from monai_invertible.losses.translation_loss import TranslationLoss

__all__ = ["UnpairedTranslationLoss"]


class UnpairedTranslationLoss(TranslationLoss):
    """``cycle_weight * (|G(F(x)) - x| + |F(G(y)) - y|)`` plus the adversarial terms of both directions.

    Discriminators "x" and "y" see an image alone. Equation 13 leaves the weight of the cycle out; the authors' code
    has 10.

    Terms: ``cycle_x_loss``, ``cycle_y_loss``, with a weight ``identity_x_loss``, ``identity_y_loss``; then
    ``adversarial_x_loss``, ``adversarial_y_loss``; ``discriminator_x_loss``, ``discriminator_y_loss``.

    Args:
        cycle_weight: of the absolute error after there and back.
        identity_weight: as a share of ``cycle_weight``, of ``|F(y) - y|`` and ``|G(x) - x|``, which keep the colours of
            images that are in their domain already; needs as many channels in X as in Y. 0 for none, as in the paper.
        adversarial: see :class:`TranslationLoss`; None for least squares on the logits as they are (MONAI's default
            has a leaky ReLU before them).

    Raises:
        ValueError: a generator whose result has another shape than it should, or discriminators of other names.
    """

    def __init__(
        self, cycle_weight: float = 10.0, identity_weight: float = 0.0, *, adversarial: nn.Module | None = None
    ) -> None:
        if adversarial is None:
            adversarial = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
        super().__init__(adversarial)
        self.cycle_weight = cycle_weight
        self.identity_weight = identity_weight

    def translate(self, generators: Callable[..., Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        images = super().translate(generators, x, y)
        images["cycled_x"] = generators(images["fake_y"], direction="inverse")
        images["cycled_y"] = generators(images["fake_x"])
        if self.identity_weight:
            images["same_x"], images["same_y"] = generators(x, direction="inverse"), generators(y)
        return images

    def reconstruction(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        terms = {f"cycle_{name}_loss": self.cycle_weight * self._l1(images, f"cycled_{name}", name) for name in "xy"}
        if self.identity_weight:
            weight = self.cycle_weight * self.identity_weight
            terms |= {f"identity_{name}_loss": weight * self._l1(images, f"same_{name}", name) for name in "xy"}
        return terms

    def judged(self, images: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (images[name], images[f"fake_{name}"]) for name in "xy"}
