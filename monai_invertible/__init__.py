"""Invertible networks, layers and losses for MONAI: training memory that does not grow with depth."""

from monai_invertible.autograd import Inverse, InvertibleModule, InvertibleSequential, set_backprop

__version__ = "0.1.0"

__all__ = ["Inverse", "InvertibleModule", "InvertibleSequential", "__version__", "set_backprop"]
