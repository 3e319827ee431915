"""Layout: what enters in channels-last leaves in it, gradients too, and any layout gives the gradients of stored."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.autograd.helper import assert_same, example, loss
from tests.gpu.helper import HALF, chain, dropout, plain, state

LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
MODES = ["invert", "checkpoint"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("branch", [plain, dropout], ids=lambda b: b.__name__)
@pytest.mark.parametrize("dims", LAST)
def test_channels_last(device, dims, branch, mode):
    """Output, the gradient that leaves the chain, and dropout's masks, which follow the layout in memory."""
    seen = {}

    def step(net):
        x = state(device, dims).to(memory_format=LAST[dims]).requires_grad_()
        h = x * 1.5  # so that the chain's gradient is seen as it leaves the chain
        h.register_hook(lambda gradient: seen.update(gradient=gradient.clone(memory_format=torch.preserve_format)))
        y = net(h)
        seen["output"] = y.detach()
        loss(y).backward()
        return {"output": y, "gradient": x.grad}

    assert_same(chain(device, branch, dims=dims).to(memory_format=LAST[dims]), step, mode=mode)
    for what, tensor in seen.items():
        assert tensor.is_contiguous(memory_format=LAST[dims]), f"{what}: strides {tensor.stride()}"


STATES = {
    "transposed": lambda x: x.transpose(2, 3),
    "every second place": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "channels of a larger tensor": lambda x: torch.cat([x, x, x], 1)[:, 2 * HALF : 4 * HALF],
    "expanded": lambda x: x[:, :, :1].expand(-1, -1, 12, -1),
    "batch innermost": lambda x: x.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("branch", [plain, dropout], ids=lambda b: b.__name__)
@pytest.mark.parametrize("layout", STATES)
def test_state_that_is_not_contiguous(device, layout, branch, mode):
    def step(net):
        x = state(device).requires_grad_()
        y = net(STATES[layout](x))
        loss(y).backward()
        return {"output": y, "gradient": x.grad}

    assert_same(chain(device, branch), step, mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(2, 2, 6, 5), (1, 2, 6, 1), (2, 2, 1, 1), (1, 4, 1, 7)], ids=str)
@pytest.mark.parametrize("layout", ["channels last", "transposed"])
def test_dimensions_of_size_one(device, layout, shape, mode):
    """Their strides mean nothing, yet random kernels look at them."""
    channels = shape[1] // 2

    def step(net):
        x = example(*shape).to(device)
        x = x.to(memory_format=torch.channels_last) if layout == "channels last" else x.mT.contiguous().mT
        x.requires_grad_()
        y = net(x)
        loss(y).backward()
        return {"output": y, "gradient": x.grad}

    def branch(dims):
        return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.Dropout(0.4), nn.Tanh())

    assert_same(chain(device, branch), step, mode=mode)
