"""Training of two generators, from one domain of images to another and back, against their discriminators.

Order of the steps: Zhu et al., CycleGAN, ICCV 2017, and van der Ouderaa and Worrall, RevGAN, CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from monai.engines.trainer import Trainer
from monai.engines.utils import IterationEvents
from monai.engines.workflow import Workflow
from monai.inferers.inferer import Inferer, SimpleInferer
from monai.utils.enums import AdversarialIterationEvents, AdversarialKeys
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from monai_invertible.engines.prepare_translation import PrepareBatchTranslation

__all__ = ["TranslationTrainer"]

_LOSS_COMPLETED = AdversarialIterationEvents.DISCRIMINATOR_LOSS_COMPLETED
_BACKWARD_COMPLETED = AdversarialIterationEvents.DISCRIMINATOR_BACKWARD_COMPLETED
_MODEL_COMPLETED = AdversarialIterationEvents.DISCRIMINATOR_MODEL_COMPLETED


class TranslationTrainer(Trainer):
    """Each iteration: the generators once, forward and backward, with the discriminators frozen; then the
    discriminators on the same images, detached, or on earlier ones from the pool.

    The loss decides what this is: paired, unpaired, or, without discriminators, paired without adversary.

    ``engine.state.output`` holds the images and the terms of the loss by their names, their sums "loss" (generators)
    and "discriminator_loss". Ignite events: MONAI's ``IterationEvents``, of which all but the last are about the
    generators, and the three of ``AdversarialIterationEvents`` that begin with DISCRIMINATOR and end with
    LOSS_COMPLETED, BACKWARD_COMPLETED and MODEL_COMPLETED.

    Resume with the state of ``g_network``, ``d_network``, both optimisers and their schedules, ``pool``, ``scaler``
    (one for both, there from the beginning; None without ``amp`` or CUDA) and the trainer.

    Args:
        device: where to train.
        max_epochs: how long.
        train_data_loader: batches, by default with "x" and "y".
        g_network: the generators as one network, ``network(x)`` and ``network(y, direction="inverse")``; see
            :class:`~monai_invertible.networks.GeneratorPair`.
        g_optimizer: of all generators.
        loss_function: see :class:`~monai_invertible.losses.TranslationLoss`.
        d_network: the discriminators by the names that the loss has for them, an ``nn.ModuleDict``; None for none.
        d_optimizer: of all discriminators.
        pool: :class:`~monai_invertible.data.ImagePool` for the discriminators' step.
        prepare_batch: gives ``(x, y)``.
        g_inferer: runs the generators; MONAI's ``SimpleInferer`` by default.
        key_train_metric, train_handlers, amp, event_names, optim_set_to_none, accumulation_steps: as in MONAI's
            ``SupervisedTrainer``; mixed precision on any device, in bfloat16 on a CPU.
        kwargs: other arguments of MONAI's trainers (``epoch_length``, ``postprocessing``, ``decollate``, ...).

    Raises:
        ValueError: discriminators without an optimiser or the other way, or ``accumulation_steps`` below 1.
    """

    def __init__(
        self,
        device: str | torch.device,
        max_epochs: int,
        train_data_loader: Iterable | DataLoader,
        g_network: nn.Module,
        g_optimizer: Optimizer,
        loss_function: Any,
        d_network: nn.ModuleDict | None = None,
        d_optimizer: Optimizer | None = None,
        *,
        pool: Callable[[Tensor, str], Tensor] | None = None,
        prepare_batch: Callable | None = None,
        g_inferer: Inferer | None = None,
        key_train_metric: dict[str, Any] | None = None,
        train_handlers: Sequence | None = None,
        amp: bool = False,
        event_names: Sequence | None = None,
        optim_set_to_none: bool = False,
        accumulation_steps: int = 1,
        **kwargs: Any,
    ) -> None:
        if (d_network is None) != (d_optimizer is None):
            missing, given = ("d_network", "d_optimizer") if d_network is None else ("d_optimizer", "d_network")
            raise ValueError(f"TranslationTrainer: {given} needs {missing}, got None. Give both or neither.")
        if accumulation_steps < 1:
            raise ValueError(
                f"TranslationTrainer: accumulation_steps must be positive, got {accumulation_steps}. Use 1 for none."
            )
        super().__init__(
            device,
            max_epochs,
            train_data_loader,
            prepare_batch=PrepareBatchTranslation() if prepare_batch is None else prepare_batch,
            key_metric=key_train_metric,
            handlers=train_handlers,
            amp=amp,
            event_names=[*(event_names or ()), _LOSS_COMPLETED, _BACKWARD_COMPLETED, _MODEL_COMPLETED],
            **kwargs,
        )
        self.g_network = g_network
        self.g_optimizer = g_optimizer
        self.loss_function = loss_function
        self.d_network = d_network
        self.d_optimizer = d_optimizer
        self.pool = pool
        self.g_inferer = SimpleInferer() if g_inferer is None else g_inferer
        self.optim_set_to_none = optim_set_to_none
        self.accumulation_steps = accumulation_steps
        self.scaler: Any = torch.amp.GradScaler("cuda") if amp and self.state.device.type == "cuda" else None

    def run(self) -> None:  # type: ignore[override]
        """Train; a second call goes on."""
        Workflow.run(self)  # MONAI's Trainer.run would begin with a new scaler, and lose the one of a checkpoint

    def _iteration(self, engine: Any, batchdata: Any) -> Any:
        """One iteration; see the class."""
        x, y = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        first, last = self._accumulation()
        for optimizer in (self.g_optimizer, self.d_optimizer):
            if first and optimizer is not None:
                optimizer.zero_grad(set_to_none=self.optim_set_to_none)

        for network in (self.g_network, self.d_network):
            if network is not None:
                network.train()
        with _frozen(self.d_network):
            with self._autocast():
                images = self.loss_function.translate(partial(self.g_inferer, network=self.g_network), x, y)
                engine.state.output = dict(images)
                engine.fire_event(IterationEvents.FORWARD_COMPLETED)
                loss = self._sum(Keys.LOSS, self.loss_function.generator_terms(images, self.d_network))
                engine.fire_event(IterationEvents.LOSS_COMPLETED)
            self._learn(loss, self.g_optimizer, IterationEvents.BACKWARD_COMPLETED, last)

        images = {name: image.detach() for name, image in images.items()}
        engine.state.output |= images
        if self.d_network is not None and self.d_optimizer is not None:
            with self._autocast():
                terms = self.loss_function.discriminator_terms(images, self.d_network, self.pool)
                loss = self._sum(AdversarialKeys.DISCRIMINATOR_LOSS.value, terms)
                engine.fire_event(_LOSS_COMPLETED)
            self._learn(loss, self.d_optimizer, _BACKWARD_COMPLETED, last)
            engine.fire_event(_MODEL_COMPLETED)
        if last and self.scaler is not None:
            self.scaler.update()
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _accumulation(self) -> tuple[bool, bool]:
        """Whether the iteration is the first of those that share an optimiser's step, and whether it is the last."""
        steps, length = self.accumulation_steps, self.state.epoch_length
        number = self.state.iteration - 1 if length is None else (self.state.iteration - 1) % length
        return number % steps == 0, (number + 1) % steps == 0 or number + 1 == length

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.state.device.type, **{"enabled": self.amp, **self.amp_kwargs})

    def _sum(self, name: str, terms: dict[str, Tensor]) -> Tensor:
        """The sum of the terms; it and they go into the output."""
        total = torch.stack(list(terms.values())).sum()
        self.state.output |= {key: term.detach() for key, term in {**terms, name: total}.items()}
        return total

    def _learn(self, loss: Tensor, optimizer: Optimizer, backward_completed: Any, step: bool) -> None:
        """Backward and, at the end of an accumulation, the optimiser's step."""
        loss = loss / self.accumulation_steps
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        self.fire_event(backward_completed)
        if step:
            optimizer.step() if self.scaler is None else self.scaler.step(optimizer)


@contextmanager
def _frozen(network: nn.Module | None) -> Iterator[None]:
    """No gradients for the network's parameters meanwhile."""
    parameters = [] if network is None else [part for part in network.parameters() if part.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
