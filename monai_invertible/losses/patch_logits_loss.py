"""The adversarial loss of the first GANs, on the logits of a patch discriminator.

Goodfellow et al., Generative Adversarial Nets, 2014, arXiv 1406.2661; per patch: Isola et al., Image-to-Image
Translation with Conditional Adversarial Networks, CVPR 2017, arXiv 1611.07004.
"""

from __future__ import annotations

from monai.losses.adversarial_loss import PatchAdversarialLoss
from monai.utils.enums import LossReduction
from torch import nn

__all__ = ["PatchLogitsLoss"]


class PatchLogitsLoss(PatchAdversarialLoss):
    r"""MONAI's ``PatchAdversarialLoss(criterion="bce")``, computed from the logits :math:`z` without their sigmoid.

    :math:`-\log \sigma(z)` where the image counts as real, :math:`-\log(1 - \sigma(z))` where it counts as generated.
    MONAI takes the logarithm of the sigmoid, which float32 rounds to 1 from z = 17 on: there the loss jumps to 100 and
    a discriminator that is wrong gets no gradient any more; and PyTorch refuses it in mixed precision on CUDA.

    Args:
        reduction: "mean", "sum" or "none".
    """

    def __init__(self, reduction: LossReduction | str = LossReduction.MEAN) -> None:
        super().__init__(reduction=reduction, criterion="bce")
        self.activation = None
        self.loss_fct = nn.BCEWithLogitsLoss(reduction=LossReduction(reduction).value)
