"""Two networks of any kind as a pair of generators: CycleGAN's and pix2pix's way, where nothing is shared."""

from __future__ import annotations

from torch import Tensor, nn

from monai_invertible.networks.blocks.generator_pair import GeneratorPair

__all__ = ["IndependentGenerators"]


class IndependentGenerators(GeneratorPair):
    """F and G are two separate networks.

    Args:
        forward_generator: F, from X to Y; any network of one input and one output.
        inverse_generator: G, from Y to X.

    Shapes: those of the two networks.
    """

    def __init__(self, forward_generator: nn.Module, inverse_generator: nn.Module) -> None:
        super().__init__()
        self.forward_generator = forward_generator
        self.inverse_generator = inverse_generator

    def translate(self, x: Tensor) -> Tensor:
        return self.forward_generator(x)

    def translate_back(self, y: Tensor) -> Tensor:
        return self.inverse_generator(y)

    def example_input(self) -> Tensor:
        """That of F."""
        return self.forward_generator.example_input()  # type: ignore[operator]
