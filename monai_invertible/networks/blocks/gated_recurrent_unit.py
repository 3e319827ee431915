"""A gated recurrent unit on images: every pixel has a state of its own and is updated by itself.

Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014, with the matrices as 1 x 1
convolutions, as in the recurrent inference machines of Putzky and Welling (2017) and Lonning et al. (2018).
"""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv

__all__ = ["ConvolutionalGRU"]


class ConvolutionalGRU(torch.nn.Module):
    """One step of a gated recurrent unit: h' = (1 - z) * h + z * n.

    z = sigmoid(W_z x + U_z h), r = sigmoid(W_r x + U_r h), n = tanh(W_n x + r * (U_n h)), each W and U a 1 x 1
    convolution with a bias. The gate z weighs the *new* value, in contrast to ``torch.nn.GRUCell``, where it weighs
    the old one. W and U are initialised orthogonal, biases zero.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: channels of x.
        channels: channels of the state h.

    Shapes:
        x: (B, in_channels, \\*spatial). h: (B, channels, \\*spatial), or None for zeros. Output: h', shaped like h.
    """

    def __init__(self, spatial_dims: int, in_channels: int, channels: int) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.channels = channels
        self.input = conv(in_channels, 3 * channels, kernel_size=1)
        self.state = conv(channels, 3 * channels, kernel_size=1)
        for layer in (self.input, self.state):
            torch.nn.init.orthogonal_(layer.weight)
            torch.nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor, h: torch.Tensor | None = None) -> torch.Tensor:
        """h'."""
        if h is None:
            h = x.new_zeros(x.shape[0], self.channels, *x.shape[2:])
        from_input, from_state = self.input(x).chunk(3, dim=1), self.state(h).chunk(3, dim=1)
        z = torch.sigmoid(from_input[0] + from_state[0])
        r = torch.sigmoid(from_input[1] + from_state[1])
        n = torch.tanh(from_input[2] + r * from_state[2])
        return (1 - z) * h + z * n
