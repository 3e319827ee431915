"""A translation training that is interrupted and resumed gives the weights of one that was not; one that diverges
stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.handlers import LrScheduleHandler, from_engine
from monai.transforms import RandFlipd
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from monai_invertible.data import ImagePool
from monai_invertible.engines import TranslationTrainer, linear_decay
from monai_invertible.handlers import CheckpointReader, EpochSeedHandler, FiniteLossHandler, ResumeCheckpointSaver
from monai_invertible.losses import UnpairedTranslationLoss
from tests.engines.translation import discriminators, generators, images, state, trainer


def prepared(folder: Path, epochs: int, *, resume: bool = False, **options: Any) -> TranslationTrainer:
    """A training with everything that must go on: pools, schedules, random order and flips."""
    pool, network = ImagePool(3), generators()
    judges = discriminators(UnpairedTranslationLoss())
    optimizers = [torch.optim.Adam(part.parameters(), 2e-3, (0.5, 0.999)) for part in (network, judges)]
    schedules = [LambdaLR(optimizer, linear_decay(1, 3)) for optimizer in optimizers]
    engine = trainer(
        max_epochs=epochs,
        g_network=network,
        g_optimizer=optimizers[0],
        d_network=judges,
        d_optimizer=optimizers[1],
        data=DataLoader(Dataset(images(6), RandFlipd(("x", "y"), prob=0.5, spatial_axis=1)), shuffle=True),
        pool=pool,
        train_handlers=[
            EpochSeedHandler(seed=3),
            FiniteLossHandler(),
            *(LrScheduleHandler(schedule, print_lr=False) for schedule in schedules),
        ],
        **options,
    )
    saved = {
        "network": network,
        "discriminators": judges,
        "optimizer": optimizers[0],
        "d_optimizer": optimizers[1],
        "lr_scheduler": schedules[0],
        "d_lr_scheduler": schedules[1],
        "pool": pool,
        "scaler": engine.scaler,
        "trainer": engine,
    }
    ResumeCheckpointSaver(str(folder), saved).attach(engine)
    if resume:
        CheckpointReader(str(folder / "resume.pt"), saved).attach(engine)
    return engine


@pytest.mark.parametrize("without", [None, "pool"])
def test_resumed_as_if_never_interrupted(without: str | None, tmp_path: Path) -> None:
    """Two epochs and two more; the pool matters."""
    whole = prepared(tmp_path, 4)
    whole.run()
    prepared(tmp_path, 2).run()
    again = prepared(tmp_path, 4, resume=True)
    if without == "pool":
        checkpoint = torch.load(tmp_path / "resume.pt", weights_only=True)
        checkpoint["pool"] = {}
        torch.save(checkpoint, tmp_path / "resume.pt")
    again.run()
    assert again.state.epoch == 4 and whole.d_optimizer.param_groups[0]["lr"] == again.d_optimizer.param_groups[0]["lr"]
    same = [torch.allclose(value, state(again)[name], rtol=0, atol=1e-12) for name, value in state(whole).items()]
    assert all(same) if without is None else not all(same)


class Burst(nn.Module):
    """A discriminator whose logit of a generated image is infinite in the second iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 1)
        self.calls = 0

    def forward(self, image: Tensor) -> Tensor:
        self.calls += 1
        return self.conv(image) + (torch.inf if self.calls == 6 else 0)  # three calls an iteration


def test_a_discriminator_that_diverges_stops_the_training(tmp_path: Path) -> None:
    """The generators' loss is still a number then; what is saved is from the epoch before."""
    judges = discriminators(UnpairedTranslationLoss())
    judges["x"] = Burst().double()
    engine = trainer(d_network=judges, data=DataLoader(images(1)), max_epochs=3, train_handlers=[FiniteLossHandler()])
    ResumeCheckpointSaver(str(tmp_path), {"network": engine.g_network, "trainer": engine}).attach(engine)
    message = "the discriminator_x_loss must be finite, got inf in iteration 2 of epoch 2. The last checkpoint is kept"
    with pytest.raises(FloatingPointError, match=message):
        engine.run()
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["trainer"]["iteration"] == 1


def test_monai_reads_the_output_by_the_names_of_the_terms() -> None:
    engine = trainer()
    engine.run()
    (first, *_), _ = from_engine(["cycle_x_loss", "discriminator_loss"])(engine.state.output)
    assert float(first) > 0
