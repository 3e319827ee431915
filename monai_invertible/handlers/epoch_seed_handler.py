"""Random numbers that depend on the seed and the epoch alone, so that a resumed training repeats an uninterrupted one.

Ignite makes the iterator over a data loader in the first epoch after EPOCH_STARTED, in later ones where the last epoch
left the loader; MONAI seeds transforms when a loader is made. What is drawn in an epoch therefore depends on the epochs
before it in the same process. Storing states would not help: those in the workers of a data loader cannot be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from monai.data.dataset import SmartCacheDataset
from monai.data.iterable_dataset import ShuffleBuffer
from monai.data.utils import set_rnd
from monai.utils.misc import set_determinism

if TYPE_CHECKING:
    from ignite.engine import Engine

__all__ = ["EpochSeedHandler"]


class EpochSeedHandler:
    """Ignite handler that begins every epoch with seeds made of (``seed``, epoch, rank), and a new pass over the data.

    Seeded are torch on all devices (dropout; the order of the data and the workers of the loader), NumPy, Python, the
    MONAI transforms in the loader's dataset, generators and distributed samplers of the loader. Nothing has to be
    stored: a training resumed from the end of an epoch, with the same data, batch size, workers and processes, gives
    the numbers of one that was never interrupted.

    Attach it to the trainer, and to the validation's engine only if its transforms are random.

    Args:
        seed: not negative; each gives other numbers.

    Raises:
        ValueError: the training is resumed in the middle of an epoch, or something keeps a random state from epoch to
            epoch that cannot be set from here.
    """

    def __init__(self, seed: int = 0) -> None:
        if seed < 0:
            raise ValueError(f"EpochSeedHandler: seed must not be negative, got {seed}. Use 0 or more.")
        self.seed = seed
        self._first = True
        self._length: int | None = None

    def attach(self, engine: Engine) -> None:
        """Register with the engine."""
        from ignite.engine import Events

        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)

    def started(self, engine: Engine) -> None:
        """A run begins; handlers after this one may still load a checkpoint, with the epoch length that it had."""
        self._first = True
        self._length = engine.state.epoch_length

    def epoch_started(self, engine: Engine) -> None:
        """Seed everything, then begin a new pass over the data."""
        loader: Any = engine.state.dataloader
        self._refuse(engine, loader)
        self._first = False
        epoch, several = engine.state.epoch, dist.is_available() and dist.is_initialized()
        rank = dist.get_rank() if several else 0
        seed = int(np.random.SeedSequence([self.seed, epoch, rank]).generate_state(1)[0])
        set_determinism(seed)
        set_rnd(getattr(loader, "dataset", None), seed)
        batches = getattr(loader, "batch_sampler", None)
        for part in (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None)):
            if isinstance(generator := getattr(part, "generator", None), torch.Generator):
                generator.manual_seed(seed)
            if set_epoch := getattr(part, "set_epoch", None):
                set_epoch(epoch)
        if loader is not None:
            engine.set_data(loader)

    def _refuse(self, engine: Engine, loader: Any) -> None:
        """Raise for what would not be repeated."""
        length = engine.state.epoch_length
        if self._first and self._length and length != self._length:
            raise ValueError(
                f"EpochSeedHandler: training must resume with epochs of the same length, got {self._length} iterations "
                f"and a checkpoint with {length}. Resume with the same data, split and batch size, or train anew."
            )
        if self._first and length and engine.state.iteration % length:
            raise ValueError(
                "EpochSeedHandler: training must resume at the end of an epoch, got iteration "
                f"{engine.state.iteration} with {length} an epoch. Resume from a checkpoint that was saved on "
                "EPOCH_COMPLETED, with the same data and batch size."
            )
        if getattr(loader, "persistent_workers", False):
            raise ValueError(
                "EpochSeedHandler: the data loader's workers must be new in every epoch, got persistent_workers=True. "
                "Use persistent_workers=False."
            )
        if getattr(loader, "num_workers", 0) and not getattr(loader, "in_order", True):
            raise ValueError(
                "EpochSeedHandler: batches must arrive in their order, got a data loader with in_order=False. Use "
                "in_order=True."
            )
        if isinstance(dataset := getattr(loader, "dataset", None), (SmartCacheDataset, ShuffleBuffer)):
            raise ValueError(
                f"EpochSeedHandler: the dataset must not change from epoch to epoch, got {type(dataset).__name__}. Use "
                "CacheDataset, PersistentDataset or Dataset, and shuffle=True."
            )
