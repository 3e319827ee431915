"""What trainers and MONAI's evaluators get from a batch of two domains."""

from __future__ import annotations

import pytest
import torch
from monai.engines import SupervisedEvaluator
from torch.utils.data import DataLoader

from monai_invertible.engines import PrepareBatchTranslation
from tests.engines.translation import generators, images

X, Y = torch.zeros(1, 2, 4, 4), torch.ones(1, 3, 4, 4)


def test_for_a_trainer_both_domains() -> None:
    assert PrepareBatchTranslation()({"x": X, "y": Y}) == (X, Y)
    moved = PrepareBatchTranslation("photo", "label")({"photo": X, "label": Y}, dtype=torch.float64)
    assert [image.dtype for image in moved] == [torch.float64] * 2


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_an_evaluator_runs_one_direction(direction: str) -> None:
    network = generators()
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(images(1)),
        network=network,
        prepare_batch=PrepareBatchTranslation(direction=direction),
    )
    evaluator.run()
    x, y = images(1)[0]["x"], images(1)[0]["y"]
    given, wanted = (x, y) if direction == "forward" else (y, x)
    (output,) = evaluator.state.output
    assert torch.equal(output["image"], given) and torch.equal(output["label"], wanted)
    torch.testing.assert_close(output["pred"], network(given[None], direction=direction)[0].detach())


def test_images_without_a_counterpart() -> None:
    assert PrepareBatchTranslation(direction="forward")({"x": X}) == (X, None, (), {"direction": "forward"})
    assert PrepareBatchTranslation(direction="inverse")({"y": Y}) == (Y, None, (), {"direction": "inverse"})


def test_errors() -> None:
    with pytest.raises(ValueError, match='direction must be "forward" or "inverse", got \'back\'. Choose one'):
        PrepareBatchTranslation(direction="back")
    for prepare in (PrepareBatchTranslation(), PrepareBatchTranslation(direction="inverse")):
        with pytest.raises(ValueError, match=r'the batch must have "y", got \[\'image\', \'x\'\]. Set x_key and y_key'):
            prepare({"x": X, "image": Y})
