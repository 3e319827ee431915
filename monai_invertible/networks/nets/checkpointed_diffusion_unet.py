"""MONAI's diffusion U-Net with activation checkpointing, which it does not offer: the invertible one's fair peer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from torch import Tensor, nn

from monai_invertible.autograd.checkpointing import run_checkpointed

__all__ = ["CheckpointedDiffusionUNet"]


class CheckpointedDiffusionUNet(DiffusionModelUNet):
    """``monai.networks.nets.DiffusionModelUNet`` whose residual blocks, attentions and resamplings keep their inputs
    only, and are evaluated again in backward.

    The same arguments, parameters, ``state_dict`` and results.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """As MONAI's."""
        with checkpointed(self.parts()):
            return super().forward(*args, **kwargs)

    def parts(self) -> list[nn.Module]:
        """What is checkpointed, each by itself."""
        levels = [*self.down_blocks, self.middle_block, *self.up_blocks]
        leaves: list[nn.Module] = []
        for child in (child for level in levels for child in level.children()):
            leaves += child if isinstance(child, nn.ModuleList) else [child]
        return leaves


@contextmanager
def checkpointed(modules: list[nn.Module]) -> Iterator[None]:
    """Within, these modules are checkpointed when they are called."""

    def wrap(module: nn.Module) -> Any:
        function = module.forward
        return lambda *args, **kwargs: run_checkpointed(module, *args, function=function, **kwargs)

    own = [vars(module).get("forward") for module in modules]
    for module in modules:
        module.forward = wrap(module)
    try:
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward
