"""A training that is killed and resumed gives the losses and weights of one that was not, whatever draws numbers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import CacheDataset, DataLoader, Dataset, PersistentDataset, ShuffleBuffer, SmartCacheDataset
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, Lambdad, RandSpatialCropd
from torch import nn
from torch.utils.data import RandomSampler

from monai_invertible.handlers import CheckpointReader, EpochSeedHandler, ResumeCheckpointSaver

ROOT = Path(__file__).parents[2]
DATASETS = {"CacheDataset": CacheDataset, "PersistentDataset": PersistentDataset, "Dataset": Dataset}


def noise(image: torch.Tensor) -> torch.Tensor:
    """From the three generators that are not MONAI's."""
    return image + 0.1 * (torch.rand(1).item() + np.random.rand() + random.random())


def trainer(
    folder: Path, epochs: int, *, workers: int = 0, dataset: str = "Dataset", handler: bool = True, **options: Any
) -> tuple[SupervisedTrainer, list[float]]:
    """One that shuffles, crops at random, adds noise and drops out; and its losses, as they come."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 1)).double()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    kinds: dict[str, Any] = {"CacheDataset": {"progress": False}, "PersistentDataset": {"cache_dir": folder / "cache"}}
    random.seed(None)
    np.random.seed(None)
    torch.seed()  # from here on nothing but the handler gives an order to chance
    crop = Compose([RandSpatialCropd("image", roi_size=8, random_size=False), Lambdad("image", noise)])
    images = [torch.linspace(0, number, 12, dtype=torch.float64)[None] for number in range(1, 8)]
    data = [{"image": image, "label": torch.zeros(1, 1)} for image in images]
    loader = DataLoader(
        DATASETS[dataset](data, crop, **kinds.get(dataset, {})),
        batch_size=2,
        shuffle=True,
        num_workers=workers,
        **options,
    )
    engine = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=nn.MSELoss(),
        decollate=False,
        train_handlers=[EpochSeedHandler(seed=3)] if handler else None,
    )
    losses: list[float] = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: losses.append(engine.state.output["loss"].item())
    )
    return engine, losses


def train(
    folder: Path, epochs: int, *, resume: bool = False, kill_in: int | None = None, **options: Any
) -> tuple[list[float], torch.Tensor]:
    """The losses of the epochs that are run, and the weights in the end."""
    engine, losses = trainer(folder, epochs, **options)
    saved = {"network": engine.network, "optimizer": engine.optimizer, "trainer": engine}
    ResumeCheckpointSaver(str(folder), saved).attach(engine)
    if resume:
        CheckpointReader(str(folder / "resume.pt"), saved).attach(engine)
    if kill_in:
        at = Events.ITERATION_COMPLETED(once=kill_in)
        engine.add_event_handler(at, lambda: os.kill(os.getpid(), signal.SIGKILL))
    engine.run()
    return losses, torch.cat([weight.detach().flatten() for weight in engine.network.parameters()])


@pytest.mark.parametrize(
    ("workers", "dataset"), [(0, "CacheDataset"), (0, "PersistentDataset"), (0, "Dataset"), (2, "CacheDataset")]
)
def test_killed_and_resumed_as_if_never_interrupted(workers: int, dataset: str, tmp_path: Path) -> None:
    """Two epochs, a kill in the middle of the third, resumed up to four."""
    options = {"workers": workers, "dataset": dataset}
    losses, weights = train(tmp_path, 4, **options)
    program = (
        "import pathlib, tests.handlers.test_epoch_seed_handler as test\n"
        f"test.train(pathlib.Path({str(tmp_path)!r}), 4, kill_in=10, **{options})"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["trainer"]["iteration"] == 8
    again, weights_again = train(tmp_path, 4, resume=True, **options)
    assert again == pytest.approx(losses[8:], rel=1e-12)
    torch.testing.assert_close(weights_again, weights, rtol=1e-12, atol=1e-12)


def test_without_the_handler_it_is_another_training(tmp_path: Path) -> None:
    losses, _ = train(tmp_path, 4, handler=False)
    train(tmp_path, 2, handler=False)
    assert train(tmp_path, 4, resume=True, handler=False)[0] != pytest.approx(losses[8:], rel=1e-3)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_epoch_draws_other_numbers(workers: int, tmp_path: Path) -> None:
    """With weights that do not move, only chance changes the losses."""
    engine, losses = trainer(tmp_path, 3, workers=workers)
    engine.optimizer.param_groups[0]["lr"] = 0.0
    engine.run()
    assert len(set(losses)) == 12


def orders(loader: Any, *, seed: int = 0, start: int = 0, **state: Any) -> list[list[int]]:
    """The numbers that each epoch of an engine sees, up to the third."""
    seen: list[list[int]] = []
    engine = Engine(lambda engine, batch: seen[-1].extend(batch.tolist()))
    EpochSeedHandler(seed).attach(engine)
    engine.add_event_handler(Events.EPOCH_STARTED, lambda: seen.append([]))
    if start:
        engine.load_state_dict(
            {"epoch": start, "max_epochs": 3, "epoch_length": state.get("epoch_length", len(loader))}
        )
    engine.run(loader, max_epochs=3, **state)
    return seen


def loader(**options: Any) -> DataLoader:
    return DataLoader(list(range(20)), batch_size=2, **{"shuffle": True, **options})


def test_order_of_the_data() -> None:
    """It follows the seed and the epoch, also when an epoch is a part of the loader's pass or more than one."""
    first = orders(loader())
    assert sorted(first[0]) == list(range(20)) and first[0] != first[1] != first[2]
    assert orders(loader()) == first and orders(loader(), seed=1) != first
    for length in (4, 10, 15):
        whole = orders(loader(), epoch_length=length)
        assert [len(epoch) for epoch in whole] == [2 * length] * 3
        assert orders(loader(), epoch_length=length, start=1) == whole[1:]


def test_generators_of_the_loader_and_of_its_sampler() -> None:
    for options in (
        {"generator": torch.Generator()},
        {"shuffle": False, "sampler": RandomSampler(range(20), generator=torch.Generator())},
    ):
        assert orders(loader(**options), start=1) == orders(loader(**options))[1:]


def test_distributed_sampler() -> None:
    """Its epoch is set before workers begin to fetch; ranks share the order of the data."""
    for workers in (0, 2):
        samplers = [torch.utils.data.DistributedSampler(range(20), 2, rank) for rank in (0, 1)]
        first, second = (orders(loader(shuffle=False, sampler=part, num_workers=workers)) for part in samplers)
        assert all(sorted(one + two) == list(range(20)) for one, two in zip(first, second, strict=True))
        assert first[0] != first[1]
        assert orders(loader(shuffle=False, sampler=samplers[0], num_workers=workers), start=2) == first[2:]


def test_ranks_draw_different_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        engine = Engine(lambda engine, batch: drawn.append(torch.rand(1).item()))
        EpochSeedHandler().attach(engine)
        engine.run([0], max_epochs=2)
    assert len(set(drawn)) == 4


def test_data_may_be_a_list_or_nothing() -> None:
    drawn: list[float] = []
    for data in ([0, 1], None, [0, 1]):
        engine = Engine(lambda engine, batch: drawn.append(torch.rand(1).item()))
        EpochSeedHandler().attach(engine)
        engine.run(data, max_epochs=2, epoch_length=2)
    assert drawn[:4] == drawn[4:8] == drawn[8:] and len(set(drawn)) == 4


def test_the_middle_of_an_epoch_is_refused() -> None:
    engine = Engine(lambda engine, batch: None)
    EpochSeedHandler().attach(engine)
    engine.load_state_dict({"iteration": 7, "max_epochs": 3, "epoch_length": 5})
    with pytest.raises(ValueError, match="must resume at the end of an epoch, got iteration 7 with 5 an epoch. Resume"):
        engine.run(range(5))


def test_an_epoch_that_was_cut_short_is_not() -> None:
    engine = Engine(lambda engine, batch: engine.terminate_epoch() if engine.state.iteration == 3 else None)
    EpochSeedHandler().attach(engine)
    assert engine.run(range(5), max_epochs=2).iteration == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_workers": 1, "persistent_workers": True}, "got persistent_workers=True. Use persistent_workers=False"),
        ({"num_workers": 1, "in_order": False}, "got a data loader with in_order=False. Use in_order=True"),
        ({"dataset": SmartCacheDataset([0, 1], progress=False, cache_rate=0.5)}, "got SmartCacheDataset. Use Cache"),
        ({"dataset": ShuffleBuffer([0, 1]), "shuffle": False}, "got ShuffleBuffer. Use CacheDataset"),
    ],
    ids=["persistent workers", "out of order", "changing cache", "shuffle buffer"],
)
def test_what_cannot_be_repeated_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"EpochSeedHandler: .*{message}"):
        orders(DataLoader(**{"dataset": [0, 1], "shuffle": True, **options}))


def test_negative_seed() -> None:
    with pytest.raises(ValueError, match="EpochSeedHandler: seed must not be negative, got -1"):
        EpochSeedHandler(-1)
