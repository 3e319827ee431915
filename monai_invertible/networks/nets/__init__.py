"""Architectures, one a file."""

from __future__ import annotations

from monai_invertible.networks.nets.checkpointed_diffusion_unet import CheckpointedDiffusionUNet
from monai_invertible.networks.nets.fully_invertible_unet import FullyInvertibleUNet
from monai_invertible.networks.nets.independent_generators import IndependentGenerators
from monai_invertible.networks.nets.interpolation_generators import InterpolationGenerators
from monai_invertible.networks.nets.invertible_diffusion_unet import InvertibleDiffusionUNet
from monai_invertible.networks.nets.invertible_rim import InvertibleRIM
from monai_invertible.networks.nets.irevnet import IRevNet
from monai_invertible.networks.nets.magnitude_unet import MagnitudeUNet
from monai_invertible.networks.nets.partially_invertible_unet import PartiallyInvertibleUNet
from monai_invertible.networks.nets.plain_resnet import PlainResNet
from monai_invertible.networks.nets.plain_unet import PlainUNet
from monai_invertible.networks.nets.recurrent_inference_machine import RecurrentInferenceMachine
from monai_invertible.networks.nets.resnet_generator import ResNetGenerator
from monai_invertible.networks.nets.revnet import RevNet
from monai_invertible.networks.nets.super_resolution_generators import SuperResolutionGenerators
from monai_invertible.networks.nets.translation_generators import TranslationGenerators
from monai_invertible.networks.nets.zero_filled import ZeroFilled

__all__ = [
    "CheckpointedDiffusionUNet",
    "FullyInvertibleUNet",
    "IRevNet",
    "IndependentGenerators",
    "InterpolationGenerators",
    "InvertibleDiffusionUNet",
    "InvertibleRIM",
    "MagnitudeUNet",
    "PartiallyInvertibleUNet",
    "PlainResNet",
    "PlainUNet",
    "RecurrentInferenceMachine",
    "ResNetGenerator",
    "RevNet",
    "SuperResolutionGenerators",
    "TranslationGenerators",
    "ZeroFilled",
]
