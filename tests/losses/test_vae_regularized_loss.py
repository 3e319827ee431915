"""Cross-entropy plus Dice plus the terms of the variational branch."""

from __future__ import annotations

import torch
from monai.losses import DiceCELoss, DiceFocalLoss, DiceLoss
from torch.nn import functional as F

from monai_invertible.losses import VAERegularizedLoss


def test_a_tensor_is_scored_by_the_segmentation_loss_alone() -> None:
    logits, target = torch.randn(2, 4, 5, 5), torch.randint(4, (2, 1, 5, 5))
    loss = DiceCELoss(include_background=False, softmax=True, to_onehot_y=True)
    assert torch.equal(VAERegularizedLoss(loss)(logits, target), loss(logits, target))


def test_terms_of_the_branch_are_added_with_their_weights() -> None:
    logits, target = torch.randn(2, 3, 5, 5), torch.randint(2, (2, 3, 5, 5)).float()
    loss = DiceFocalLoss(sigmoid=True, gamma=0.0)
    l2, kl = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 0.1])
    total = VAERegularizedLoss(loss, l2_weight=0.2, kl_weight=10.0)((logits, l2, kl), target)
    torch.testing.assert_close(total, loss(logits, target) + 0.2 * 2.0 + 10.0 * 0.3)


def test_the_loss_of_overlapping_regions_is_binary_cross_entropy_plus_dice() -> None:
    """On each region by itself; MONAI's DiceCELoss would let the regions compete."""
    logits, target = torch.randn(2, 3, 6, 6), torch.randint(2, (2, 3, 6, 6)).float()
    p = logits.sigmoid()
    dice = 1 - (2 * (p * target).sum((2, 3)) + 1e-5) / (p.sum((2, 3)) + target.sum((2, 3)) + 1e-5)
    expected = F.binary_cross_entropy_with_logits(logits, target) + dice.mean()
    torch.testing.assert_close(DiceFocalLoss(sigmoid=True, gamma=0.0)(logits, target), expected)


def test_dice_divides_by_the_sum_of_both_sizes() -> None:
    """Not by the union, as the paper prints: 2 of 3 and 4 voxels give 1 - 4/7."""
    prediction, target = torch.tensor([[[1.0, 1, 1, 0, 0, 0]]]), torch.tensor([[[0.0, 1, 1, 1, 1, 0]]])
    torch.testing.assert_close(DiceLoss()(prediction, target), torch.tensor(3 / 7), atol=1e-5, rtol=0)
    nothing = torch.zeros(1, 1, 6)
    assert DiceLoss()(nothing, nothing) == 0  # no foreground, and none found
