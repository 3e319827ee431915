"""Regions to labels, the inverse of MONAI's labels to regions."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.transforms import ConvertToMultiChannelBasedOnBratsClassesd

from monai_invertible.transforms import RegionsToLabeld

PAINT = [(1, 2), (0, 1), (2, 4)]


def test_inverse_of_monai() -> None:
    label = torch.tensor([0, 1, 2, 4])[torch.randint(4, (1, 5, 6, 7), generator=torch.Generator().manual_seed(0))]
    affine = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0]))
    regions = ConvertToMultiChannelBasedOnBratsClassesd("pred")({"pred": MetaTensor(label, affine=affine)})
    regions["pred"] = regions["pred"].float() * 0.2 + 0.4  # probabilities 0.4 and 0.6
    found = RegionsToLabeld("pred", PAINT)(regions)["pred"]
    assert isinstance(found, MetaTensor) and torch.equal(found.affine.float(), affine)
    assert torch.equal(found.as_tensor(), label.float())


def test_an_enhancing_part_outside_the_whole_tumour_stays() -> None:
    probabilities = torch.tensor([[0.0], [0.4], [0.9]])
    assert RegionsToLabeld("pred", PAINT)({"pred": probabilities})["pred"].tolist() == [[4.0]]
    assert RegionsToLabeld("pred", PAINT, threshold=0.95)({"pred": probabilities})["pred"].tolist() == [[0.0]]
