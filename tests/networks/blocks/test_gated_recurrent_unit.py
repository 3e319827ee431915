"""The convolutional GRU against PyTorch's, pixel by pixel."""

from __future__ import annotations

import pytest
import torch

from monai_invertible.networks.blocks import ConvolutionalGRU


@pytest.mark.parametrize("spatial", [(4, 3), (2, 3, 4)])
@pytest.mark.parametrize("with_state", [True, False])
def test_every_pixel_is_a_gru_cell(spatial, with_state):
    torch.manual_seed(0)
    ours = ConvolutionalGRU(len(spatial), 5, 6).double()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter)
    cell = torch.nn.GRUCell(5, 6).double()  # gates r, z, n; z weighs the old value: ours is 1 - z = sigmoid(-a)
    with torch.no_grad():
        for layer, weight, bias in (
            (ours.input, cell.weight_ih, cell.bias_ih),
            (ours.state, cell.weight_hh, cell.bias_hh),
        ):
            for target, source in ((weight, layer.weight.flatten(1)), (bias, layer.bias)):
                z, r, n = source.chunk(3)
                target.copy_(torch.cat([r, -z, n]))
    x = torch.randn(2, 5, *spatial, dtype=torch.float64)
    h = torch.randn(2, 6, *spatial, dtype=torch.float64) if with_state else None
    pixels = [t.flatten(2).transpose(1, 2).reshape(-1, t.shape[1]) if t is not None else None for t in (x, h)]
    expected = cell(*pixels).reshape(2, -1, 6).transpose(1, 2).reshape(2, 6, *spatial)
    torch.testing.assert_close(ours(x, h), expected)


def test_initialisation():
    layer = ConvolutionalGRU(2, 4, 4).state
    weight = layer.weight.flatten(1)
    torch.testing.assert_close(weight.T @ weight, torch.eye(4))
    assert not layer.bias.any()
