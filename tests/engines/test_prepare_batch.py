"""What a trainer passes to a reconstruction network."""

from __future__ import annotations

import pytest
import torch

from monai_invertible.engines import PrepareBatchKspace


def test_arguments_of_the_network() -> None:
    batch = {
        "kspace": torch.rand(2, 1, 4, 6, 2),
        "target": torch.rand(2, 2, 4, 6),
        "reference": torch.rand(2, 1, 4, 4),
        "mask": torch.ones(2, 1, 1, 6, 1),
    }
    kspace, target, arguments, context = PrepareBatchKspace()(batch, torch.device("cpu"), non_blocking=True)
    assert kspace is batch["kspace"] and target is batch["target"] and arguments == ()
    assert set(context) == {"mask"} and context["mask"] is batch["mask"]
    batch["sensitivities"] = torch.rand(2, 1, 4, 6, 2)
    _, target, _, context = PrepareBatchKspace(target_key="reference")(batch, "cpu", dtype=torch.float64)
    assert torch.equal(target, batch["reference"].double())
    assert set(context) == {"mask", "sensitivities"} and context["sensitivities"].dtype == torch.float64


def test_every_tensor_moves_to_the_device() -> None:
    batch = {key: torch.rand(1, 1, 4, 6, 2) for key in ("kspace", "target", "mask", "sensitivities")}
    kspace, target, _, context = PrepareBatchKspace()(batch, "meta")
    assert {x.device.type for x in (kspace, target, *context.values())} == {"meta"}


def test_batches_without_target_or_kspace() -> None:
    kspace = torch.rand(1, 1, 4, 6, 2)
    assert PrepareBatchKspace()({"kspace": kspace}) == (kspace, None, (), {})
    with pytest.raises(ValueError, match=r"the batch must have \"kspace\", got \['image'\]. Set kspace_key"):
        PrepareBatchKspace()({"image": kspace})
