"""From a batch of under-sampled k-space to the arguments of a reconstruction network."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines.utils import PrepareBatch

__all__ = ["PrepareBatchKspace"]


class PrepareBatchKspace(PrepareBatch):
    """Give MONAI's trainers and evaluators ``(kspace, target, (), {"mask": mask[, "sensitivities": sensitivities]})``.

    So the engine calls ``network(kspace, mask=mask)`` and ``loss(network's image, target)``.

    Args:
        kspace_key: the k-space (B, coils, \\*spatial, 2).
        target_key: the target of the loss: "target" (complex, B, 2, \\*spatial) or "reference" (magnitude, B, 1,
            \\*spatial). If the batch has no such key (test volumes) the target is None.
        mask_key: the masks; left out if the batch has none.
        sensitivities_key: the coil sensitivities; left out if the batch has none.

    Raises:
        ValueError: if the batch has no k-space.
    """

    def __init__(
        self,
        kspace_key: str = "kspace",
        target_key: str = "target",
        mask_key: str = "mask",
        sensitivities_key: str = "sensitivities",
    ) -> None:
        self.kspace_key = kspace_key
        self.target_key = target_key
        self.context = {"mask": mask_key, "sensitivities": sensitivities_key}

    def __call__(
        self,
        batchdata: dict[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, tuple, dict[str, torch.Tensor]]:
        """Move the tensors to ``device``; ``kwargs`` are those of ``torch.Tensor.to``."""
        if self.kspace_key not in batchdata:
            raise ValueError(
                f'PrepareBatchKspace: the batch must have "{self.kspace_key}", got {sorted(map(str, batchdata))}. '
                "Set kspace_key to the key of the k-space."
            )

        def move(key: str) -> torch.Tensor:
            return batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)

        target = move(self.target_key) if self.target_key in batchdata else None
        context = {name: move(key) for name, key in self.context.items() if key in batchdata}
        return move(self.kspace_key), target, (), context
