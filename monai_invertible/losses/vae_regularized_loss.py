r"""A segmentation loss with the terms of a variational branch.

Myronenko 2018, arXiv 1810.11654, eq. 1; Yamazaki et al. 2021, arXiv 2103.09042, eq. 7:
:math:`L = L_{CE} + L_{Dice} + 0.1 L_2 + 0.1 L_{KL}`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["VAERegularizedLoss"]


class VAERegularizedLoss(nn.Module):
    """``loss(logits, target) + l2_weight * mean(l2) + kl_weight * mean(kl)``.

    For the U-Nets of this package, which return ``(logits, l2, kl)`` in training with a variational branch, and the
    logits alone otherwise; then it is ``loss``.

    Args:
        loss: the segmentation loss. For overlapping regions MONAI's ``DiceFocalLoss(sigmoid=True, gamma=0.0)`` is Dice
            plus binary cross-entropy; for exclusive classes ``DiceCELoss(softmax=True, to_onehot_y=True)``. MONAI's
            Dice divides by the sum of both sizes, which the paper's equations 3 and 7 print as a union.
        l2_weight: of the reconstruction error.
        kl_weight: of the divergence.

    Shapes: logits ``(B, C, *spatial)``, ``l2`` and ``kl`` ``(B,)``; the target as ``loss`` takes it.
    """

    def __init__(self, loss: nn.Module, *, l2_weight: float = 0.1, kl_weight: float = 0.1) -> None:
        super().__init__()
        self.loss = loss
        self.l2_weight = l2_weight
        self.kl_weight = kl_weight

    def forward(self, output: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """The loss, a scalar."""
        if isinstance(output, Tensor):
            return self.loss(output, target)
        logits, l2, kl = output
        return self.loss(logits, target) + self.l2_weight * l2.mean() + self.kl_weight * kl.mean()
