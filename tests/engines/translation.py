"""A small translation training that several tests vary."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from monai_invertible.engines import TranslationTrainer
from monai_invertible.losses import PairedTranslationLoss, TranslationLoss, UnpairedTranslationLoss
from monai_invertible.networks import TranslationGenerators

CHANNELS = {"x": 2, "y": 3}


def images(number: int = 4, seed: int = 0) -> list[dict[str, Tensor]]:
    """Items of both domains."""
    generator = torch.Generator().manual_seed(seed)

    def image(channels: int) -> Tensor:
        return torch.rand(channels, 16, 16, generator=generator, dtype=torch.float64) * 2 - 1

    return [{name: image(channels) for name, channels in CHANNELS.items()} for _ in range(number)]


def generators(backprop: str = "invert") -> nn.Module:
    torch.manual_seed(0)
    network = TranslationGenerators(2, CHANNELS["x"], CHANNELS["y"], channels=2, depth=2, backprop=backprop).double()
    for parameter in network.parameters():  # larger than initially, so that every gradient counts
        nn.init.normal_(parameter, std=0.2)
    return network


def discriminators(loss: TranslationLoss) -> nn.ModuleDict:
    """As many channels as the loss shows them."""
    torch.manual_seed(1)
    paired = isinstance(loss, PairedTranslationLoss)

    def discriminator(channels: int) -> nn.Module:
        return PatchDiscriminator(2, 4, sum(CHANNELS.values()) if paired else channels, num_layers_d=1, norm="instance")

    return nn.ModuleDict({name: discriminator(channels) for name, channels in CHANNELS.items()}).double()


def trainer(loss: TranslationLoss | None = None, **options: Any) -> TranslationTrainer:
    """Two iterations of two items each, in an order that does not change."""
    loss = UnpairedTranslationLoss() if loss is None else loss
    network = options.pop("g_network", None) or generators()
    if "d_network" not in options:
        options["d_network"] = discriminators(loss)
    if options["d_network"] is not None:
        options.setdefault("d_optimizer", torch.optim.Adam(options["d_network"].parameters(), 2e-4, (0.5, 0.999)))
    data = options.pop("data", None) or DataLoader(images(), batch_size=options.pop("batch_size", 2))
    return TranslationTrainer(
        device=torch.device("cpu"),
        max_epochs=options.pop("max_epochs", 1),
        train_data_loader=data,
        g_network=network,
        g_optimizer=options.pop("g_optimizer", None) or torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999)),
        loss_function=loss,
        **options,
    )


def state(engine: TranslationTrainer) -> dict[str, Tensor]:
    """A copy of all weights."""
    networks = {"g": engine.g_network, **({} if engine.d_network is None else {"d": engine.d_network})}
    return {f"{name}.{key}": value.clone() for name, net in networks.items() for key, value in net.state_dict().items()}


def gradients(engine: TranslationTrainer) -> dict[str, Tensor]:
    """A copy of all gradients."""
    networks = {"g": engine.g_network, **({} if engine.d_network is None else {"d": engine.d_network})}
    return {
        f"{name}.{key}": parameter.grad.clone()
        for name, network in networks.items()
        for key, parameter in network.named_parameters()
        if parameter.grad is not None
    }
