"""What is not invertible: the branches of couplings, and the parts around chains and of the baselines."""

from __future__ import annotations

from monai_invertible.networks.blocks.bookends import Bookends
from monai_invertible.networks.blocks.classifier_head import ClassifierHead
from monai_invertible.networks.blocks.convolution_branch import ConvolutionBranch
from monai_invertible.networks.blocks.gated_recurrent_unit import ConvolutionalGRU
from monai_invertible.networks.blocks.gated_residual_block import GatedResidualBlock
from monai_invertible.networks.blocks.generator_pair import GeneratorPair
from monai_invertible.networks.blocks.linear_upsample import LinearUpsample
from monai_invertible.networks.blocks.pre_activation_convolution import PreActivationConvolution
from monai_invertible.networks.blocks.residual_branch import ResidualBranch
from monai_invertible.networks.blocks.segmentation_unet import SegmentationUNet
from monai_invertible.networks.blocks.staged_classifier import StagedClassifier
from monai_invertible.networks.blocks.time_shifted_convolution import TimeShiftedConvolution
from monai_invertible.networks.blocks.translation_coder import TranslationDecoder, TranslationEncoder
from monai_invertible.networks.blocks.variational_branch import VariationalBranch

__all__ = [
    "Bookends",
    "ClassifierHead",
    "ConvolutionBranch",
    "ConvolutionalGRU",
    "GatedResidualBlock",
    "GeneratorPair",
    "LinearUpsample",
    "PreActivationConvolution",
    "ResidualBranch",
    "SegmentationUNet",
    "StagedClassifier",
    "TimeShiftedConvolution",
    "TranslationDecoder",
    "TranslationEncoder",
    "VariationalBranch",
]
