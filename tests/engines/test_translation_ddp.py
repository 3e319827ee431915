"""Two processes with one item each take the step of one process with both."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from ignite.engine import Events
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from monai_invertible.losses import UnpairedTranslationLoss
from tests.engines.translation import discriminators, generators, gradients, images, trainer


def work(rank: int, folder: str) -> None:
    """Two iterations, since a reducer complains in the one after; the gradients are those of the first."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    judges = discriminators(UnpairedTranslationLoss())
    engine = trainer(
        g_network=DistributedDataParallel(generators()),
        d_network=nn.ModuleDict({name: DistributedDataParallel(judge) for name, judge in judges.items()}),
        data=DataLoader(images()[rank::2], batch_size=1),
    )

    @engine.on(Events.ITERATION_COMPLETED(once=1))
    def save() -> None:
        grads = {name.replace("module.", ""): grad for name, grad in gradients(engine).items()}
        torch.save(grads, f"{folder}/{rank}.pt")

    engine.run()
    Path(folder, f"done{rank}").touch()
    while not Path(folder, f"done{1 - rank}").exists():
        time.sleep(0.01)
    os._exit(0)  # gloo's destructors can wait for each other for ever


@pytest.mark.skipif(not dist.is_available() or not dist.is_gloo_available(), reason="needs torch.distributed with gloo")
def test_gradients_of_two_processes(tmp_path: Path) -> None:
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    engine = trainer(batch_size=2, epoch_length=1)
    engine.run()
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(got, gradients(engine), rtol=1e-6, atol=1e-9)
