"""The recurrent inference machine (RIM): learned gradient descent with a memory; not invertible, the i-RIM's baseline.

Putzky and Welling, "Recurrent Inference Machines for Solving Inverse Problems", 2017; for MRI, Lonning et al., Medical
Image Analysis 2019; as the baseline of "Invert to Learn to Invert", NeurIPS 2019, equations 6 and 7.
"""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from monai_invertible.autograd import BackpropSwitch
from monai_invertible.networks.blocks import ConvolutionalGRU
from monai_invertible.operators import FourierSampling, prepare_measurement

__all__ = ["RecurrentInferenceMachine"]


class RecurrentInferenceMachine(BackpropSwitch):
    """eta' = eta + g(grad, eta, s'), s' = f(grad, eta, s), ``steps`` times with the same weights, from eta = s = 0.

    grad = A^H A eta - A^H d is the gradient of the data term. f and g: convolution 5, ReLU, GRU, convolution 3 with
    dilation 2, ReLU, GRU, convolution 3 without bias; each GRU has a state of ``channels``, carried from step to step
    (in the authors' published code it is lost between steps). Convolutions pad by replication and are initialised
    Kaiming-normal. 94,464 parameters with 64 channels in 2D.

    The data are divided by the scale of the zero-filled image (``kspace_scale``), and the estimates multiplied by it.

    Memory for training grows linearly with ``steps``: every step stores its activations ("store"), or the 2 + 2
    ``channels`` maps of its state, from which backward recomputes the step ("checkpoint"). Parameters, ``state_dict``
    and results are the same.

    Args:
        spatial_dims: 2 or 3.
        steps: T, 8 in the paper.
        channels: hidden channels, 64 in the paper.
        backprop: "store" or "checkpoint".
        fft_dims: see :class:`monai_invertible.operators.FourierSampling`.

    Shapes:
        kspace: (B, coils, \\*spatial, 2), zero where not sampled. mask: broadcasts to k-space, None: inferred from the
        zeros. sensitivities: (B, coils, \\*spatial, 2), None for one coil. Output: complex image (B, 2, \\*spatial) in
        the unit of k-space; in training mode a tuple of the T estimates, because the paper's loss is averaged over
        time: losses such as :class:`monai_invertible.losses.SubsampledNMSELoss` take it as it is.

    Raises:
        ValueError: no steps, an unknown ``backprop``; k-space, mask or sensitivities of wrong shapes.
    """

    backprop_modes = ("store", "checkpoint")  # its update is not invertible

    def __init__(
        self,
        spatial_dims: int = 2,
        steps: int = 8,
        *,
        channels: int = 64,
        backprop: str = "store",
        fft_dims: int = 2,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"RecurrentInferenceMachine: steps must be at least 1, got {steps}. Use 8, as the paper.")
        self.steps = steps
        self.backprop = backprop
        self.operator = FourierSampling(fft_dims)
        conv = Conv[Conv.CONV, spatial_dims]
        same = {"padding": "same", "padding_mode": "replicate"}
        self.conv1 = conv(4, channels, kernel_size=5, **same)
        self.gru1 = ConvolutionalGRU(spatial_dims, channels, channels)
        self.conv2 = conv(channels, channels, kernel_size=3, dilation=2, **same)
        self.gru2 = ConvolutionalGRU(spatial_dims, channels, channels)
        self.conv3 = conv(channels, 2, kernel_size=3, bias=False, **same)
        for layer in (self.conv1, self.conv2, self.conv3):
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                torch.nn.init.zeros_(layer.bias)

    def forward(
        self,
        kspace: torch.Tensor,
        mask: torch.Tensor | None = None,
        sensitivities: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Reconstruct the complex image; in training mode the estimates of all steps."""
        zero_filled, mask, scale = prepare_measurement(self.operator, kspace, mask, sensitivities)
        eta = torch.zeros_like(zero_filled)
        h1 = h2 = None
        estimates = []
        for _ in range(self.steps):
            state = (eta, h1, h2, zero_filled, mask, sensitivities)
            if self.backprop == "checkpoint" and torch.is_grad_enabled():
                eta, h1, h2 = checkpoint(self._step, *state, use_reentrant=False)
            else:
                eta, h1, h2 = self._step(*state)
            if self.training:
                estimates.append(eta * scale)
        return tuple(estimates) if self.training else eta * scale

    def _step(
        self,
        eta: torch.Tensor,
        h1: torch.Tensor | None,
        h2: torch.Tensor | None,
        zero_filled: torch.Tensor,
        mask: torch.Tensor,
        sensitivities: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        gradient = self.operator.data_gradient(eta, zero_filled, mask, sensitivities)
        x = F.relu(self.conv1(torch.cat([eta, gradient], dim=1)))
        h1 = self.gru1(x, h1)
        x = F.relu(self.conv2(h1))
        h2 = self.gru2(x, h2)
        return eta + self.conv3(h2), h1, h2
