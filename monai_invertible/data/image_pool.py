"""Generated images of earlier steps, so that a discriminator does not forget them.

Shrivastava et al., Learning from Simulated and Unsupervised Images through Adversarial Training, CVPR 2017, arXiv
1612.07828, section 2.3; Zhu et al. 2017, arXiv 1703.10593, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["ImagePool"]


class ImagePool:
    """A store of up to ``size`` images a name; once it is full, every other image that comes in leaves an earlier one.

    Until then an image is stored and returned. Afterwards it is, with probability 1/2, exchanged for a stored image
    chosen at random, or else returned and not stored. The numbers are drawn from PyTorch's generator of the CPU.

    ``state_dict`` holds the images. Each process has a pool of its own, so a training of several processes that is
    resumed begins with the pool of the one that saved.

    Args:
        size: images a name; 0 returns every image as it comes. The papers have 50.

    Raises:
        ValueError: a negative size, an image of another shape than those stored, or a state of more images.
    """

    def __init__(self, size: int = 50) -> None:
        if size < 0:
            raise ValueError(f"ImagePool: size must not be negative, got {size}. Use 0 for no pool.")
        self.size = size
        self._images: dict[str, list[Tensor]] = {}

    def __call__(self, images: Tensor, name: str = "") -> Tensor:
        """A batch like ``images``, ``(B, ...)``, detached; each name has its own store."""
        images = images.detach().as_subclass(Tensor)  # a MetaTensor's meta would be in the checkpoint
        if not self.size:
            return images
        stored = self._images.setdefault(name, [])
        if stored and stored[0].shape != images.shape[1:]:
            raise ValueError(
                f"ImagePool: all images must have one shape, got {tuple(images.shape[1:])} after "
                f"{tuple(stored[0].shape)}. Use one patch size, or size=0."
            )
        return torch.stack([self._exchange(image, stored).to(images) for image in images])

    def _exchange(self, image: Tensor, stored: list[Tensor]) -> Tensor:
        if len(stored) < self.size:
            stored.append(image.clone())
            return image
        if torch.rand(()) < 0.5:
            return image
        chosen = int(torch.randint(self.size, ()))
        earlier, stored[chosen] = stored[chosen], image.clone()
        return earlier

    def state_dict(self) -> dict[str, Tensor]:
        """The stored images of each name, ``(n, ...)``."""
        return {name: torch.stack(images) for name, images in self._images.items()}

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> None:
        """Go on with the images of an earlier run."""
        most = max(map(len, state_dict.values()), default=0)
        if most > self.size:
            raise ValueError(f"ImagePool: the state must fit into {self.size} images, got {most}. Use size={most}.")
        self._images = {name: [image.clone() for image in images] for name, images in state_dict.items()}
