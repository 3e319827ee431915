"""What a pair of generators and their discriminators are trained with, as named terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["TranslationLoss"]


class TranslationLoss(nn.Module):
    """The terms of two generators, F from X to Y and G from Y to X, and of the discriminators of X and Y.

    :class:`~monai_invertible.engines.TranslationTrainer` calls :meth:`translate`, :meth:`generator_terms` and
    :meth:`discriminator_terms`; each sum of terms is what one optimiser lowers. A loss of your own defines
    :meth:`reconstruction`, :meth:`judged` and, if it needs more images than F(x) and G(y), :meth:`translate`.

    A discriminator lowers ``(L(D(real), real) + L(D(fake), generated)) / 2``, a generator ``L(D(fake), real)``, where L
    is ``adversarial``.

    Args:
        adversarial: L, called as MONAI's ``PatchAdversarialLoss``:
            ``adversarial(logits, target_is_real, for_discriminator)``.
    """

    def __init__(self, adversarial: nn.Module) -> None:
        super().__init__()
        self.adversarial = adversarial

    def translate(self, generators: Callable[..., Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """What the generators make of a batch of X and one of Y, together with them."""
        return {"x": x, "y": y, "fake_y": generators(x), "fake_x": generators(y, direction="inverse")}

    def reconstruction(self, images: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The generators' terms that need no discriminator, with their weights; their names end with "_loss"."""
        raise NotImplementedError(f"{type(self).__name__}: define reconstruction(images).")

    def judged(self, images: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        """What each discriminator compares, by its name: a real and a generated image."""
        raise NotImplementedError(f"{type(self).__name__}: define judged(images).")

    def generator_terms(
        self, images: Mapping[str, Tensor], discriminators: Mapping[str, nn.Module] | nn.ModuleDict | None = None
    ) -> dict[str, Tensor]:
        """What the generators lower the sum of; without discriminators the reconstruction alone."""
        terms = self.reconstruction(images)
        for name, discriminator, _, fake in self._cases(images, discriminators):
            terms[f"adversarial_{name}_loss"] = self.adversarial(_logits(discriminator(fake)), True, False)
        return terms

    def discriminator_terms(
        self,
        images: Mapping[str, Tensor],
        discriminators: Mapping[str, nn.Module] | nn.ModuleDict,
        pool: Callable[[Tensor, str], Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """What the discriminators lower the sum of; ``pool`` may exchange a generated image for an earlier one."""
        terms = {}
        for name, discriminator, real, fake in self._cases(images, discriminators):
            real, fake = real.detach(), fake.detach()
            fake = fake if pool is None else pool(fake, name)
            of_real = self.adversarial(_logits(discriminator(real)), True, True)
            of_fake = self.adversarial(_logits(discriminator(fake)), False, True)
            terms[f"discriminator_{name}_loss"] = (of_real + of_fake) / 2
        return terms

    def _cases(self, images: Mapping[str, Tensor], discriminators: Any) -> list[tuple[str, Any, Tensor, Tensor]]:
        """Name, discriminator, real and generated image of each discriminator."""
        if not discriminators:
            return []
        judged = self.judged(images)
        if set(discriminators.keys()) != set(judged):
            raise ValueError(
                f"{type(self).__name__}: the discriminators must be named {', '.join(sorted(judged))}, got "
                f"{', '.join(sorted(discriminators.keys()))}. Give one of each name, or none."
            )
        return [(name, discriminators[name], *pair) for name, pair in judged.items()]

    def _l1(self, images: Mapping[str, Tensor], first: str, second: str) -> Tensor:
        """The mean absolute difference of two images."""
        a, b = images[first], images[second]
        if a.shape != b.shape:
            raise ValueError(
                f"{type(self).__name__}: {first} and {second} must have one shape, got {tuple(a.shape)} and "
                f"{tuple(b.shape)}. Check the generators' channels and the sizes of x and y."
            )
        return (a - b).abs().mean()


def _logits(output: Any) -> Any:
    """The logits in what MONAI's discriminators return, in float32 at least.

    ``PatchDiscriminator`` gives a list of all its layers, the logits last; ``MultiScalePatchDiscriminator`` a tuple of
    the logits at all scales and the other layers.
    """
    if isinstance(output, tuple):
        return [_logits(scale) for scale in output[0]]
    logits = output[-1] if isinstance(output, list) else output
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
