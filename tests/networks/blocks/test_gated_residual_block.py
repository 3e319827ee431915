"""The i-RIM's branch: parameters, the formula, sizes, weight norm, export."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from monai_invertible.networks.blocks import GatedResidualBlock


def test_parameters_of_one_step_of_the_paper():
    fan = (1, 1, 2, 4, 8, 8, 4, 2, 1, 1)
    blocks = [GatedResidualBlock(2, 32, 32, 64, downsample=d) for d in fan]
    branches = sum(p.numel() for block in blocks for p in block.parameters())
    assert branches + len(fan) * 3 * 64 == 1_430_528  # with three Householder vectors of 64 channels a layer


def test_parameters_of_the_challenge_networks():
    hidden = (64, 64, 128, 128, 256, 1024, 1024, 256, 128, 128, 64, 64)
    fan = (1, 1, 2, 2, 4, 8, 8, 4, 2, 2, 1, 1)
    step = sum(
        p.numel()
        for k, d in zip(hidden, fan, strict=True)
        for p in GatedResidualBlock(2, 32, 32, k, downsample=d).parameters()
    )
    assert round(step / 1e6, 1) == 34.4


@pytest.mark.parametrize(("spatial", "d"), [((8, 12), 4), ((9, 15), 4), ((7, 6), 1), ((3, 9, 8), (1, 2, 2)), ((9,), 2)])
@pytest.mark.parametrize("gate", [True, False])
def test_formula(spatial, d, gate):
    torch.manual_seed(0)
    n = len(spatial)
    block = GatedResidualBlock(n, 3, 5, 6, downsample=d, gate=gate).double()
    x = torch.randn(2, 3, *spatial, dtype=torch.float64)
    conv, up = (getattr(F, f"{name}{n}d") for name in ("conv", "conv_transpose"))
    strides = (d,) * n if isinstance(d, int) else d
    y = F.relu(conv(x, block.down.weight, block.down.bias, stride=strides))
    y = F.relu(conv(y, block.middle.weight, block.middle.bias, padding=1))
    rest = tuple(size % stride for size, stride in zip(spatial, strides, strict=True))
    y = up(y, block.up.weight, stride=strides, output_padding=rest)
    assert block.up.bias is None
    torch.testing.assert_close(block(x), F.glu(y, 1) if gate else y)


def test_slices_mix_in_the_middle_convolution_only():
    block = GatedResidualBlock(3, 2, 2, 4, downsample=(1, 4, 4))
    x = torch.randn(1, 2, 9, 8, 8, requires_grad=True)
    block(x)[:, :, 4].sum().backward()
    assert x.grad.abs().amax((0, 1, 3, 4)).gt(0).tolist() == [False] * 3 + [True] * 3 + [False] * 3


def test_weight_norm_along_dimension_0():
    torch.manual_seed(0)
    block = GatedResidualBlock(2, 3, 5, 6, downsample=2)
    x = torch.randn(2, 3, 8, 8)
    before = block(x)
    for layer, outputs in ((block.down, 6), (block.middle, 6), (block.up, 6)):
        parametrization = layer.parametrizations.weight
        assert parametrization.original0.shape == (outputs, 1, 1, 1)
        with torch.no_grad():
            parametrization.original1.mul_(7)  # the direction's length has no influence
    torch.testing.assert_close(block(x), before)


def test_export_with_any_size():
    torch.manual_seed(0)
    block = GatedResidualBlock(2, 2, 2, 4, downsample=4)
    any_size = torch.export.Dim.DYNAMIC
    shapes = ({0: any_size, 2: any_size, 3: any_size},)
    exported = torch.export.export(block, (torch.randn(2, 2, 8, 12),), dynamic_shapes=shapes).module()
    other = torch.randn(3, 2, 13, 18)
    torch.testing.assert_close(exported(other), block(other))


def test_too_small():
    with pytest.raises(ValueError, match=r"at least downsample=\(4, 4\), got \(8, 3\). Use a smaller downsample"):
        GatedResidualBlock(2, 2, 2, 4, downsample=4)(torch.zeros(1, 2, 8, 3))
