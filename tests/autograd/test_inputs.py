"""Any layout and any subclass of tensor; in-place operations in branches; copies of networks."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from monai_invertible.autograd import InvertibleModule, InvertibleSequential, set_backprop
from monai_invertible.autograd.checkpointing import run_checkpointed
from monai_invertible.networks.layers import AdditiveCoupling, InvertibleConvolution, ResidualCoupling, Swap
from tests.autograd.helper import assert_same, coupling_chain, example, loss, train


def image_branch():
    return nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.GroupNorm(1, 2), nn.SiLU())


class Viewing(nn.Conv2d):
    """Fails if the memory layout is another one in the recomputation."""

    def __init__(self) -> None:
        super().__init__(2, 2, 3, padding=1)
        self.seen = SimpleNamespace(strides=[])  # an object of its own is not put back after a recomputation

    def forward(self, x):
        self.seen.strides.append(x.stride())
        return super().forward(x)


LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3),
    "every other": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "expanded": lambda x: x[:1].expand(3, -1, -1, -1),
    "empty batch": lambda x: x[:0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layout(layout):
    def step(net):
        leaf = example(3, 4, 5, 5).requires_grad_()
        y = net(LAYOUTS[layout](leaf))
        loss(y).backward()
        return [y.detach(), leaf.grad, torch.tensor(y.stride())]

    assert_same(coupling_chain(3, image_branch), step)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_recomputation_has_the_strides_of_the_forward(layout):
    chain = coupling_chain(2, Viewing)
    y = chain(LAYOUTS[layout](example(3, 4, 5, 5)).requires_grad_())
    loss(y).backward()
    for branch in [m for m in chain.modules() if isinstance(m, Viewing)]:
        forward, recomputed = branch.seen.strides
        assert forward == recomputed


def one_channel():
    return nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.Dropout(0.5), nn.Tanh())


SHAPES = [(3, 2, 4, 5), (1, 2, 4, 5), (3, 2, 1, 5), (3, 2, 1, 1), (1, 2, 4, 1)]


@pytest.mark.parametrize("mode", ["invert", "checkpoint"])
@pytest.mark.parametrize("branch", [one_channel, lambda: nn.Dropout(0.5)], ids=["convolution", "dropout alone"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed", "every other"])
def test_masks_follow_the_layout_of_one_channel(layout, shape, branch, mode):
    """Strides of dimensions of size one decide what torch takes for channels-last, and so the order of a mask."""

    def step(net):
        leaf = example(*shape).requires_grad_()
        y = net(LAYOUTS[layout](leaf))
        loss(y).backward()
        return [y.detach(), leaf.grad]

    assert_same(coupling_chain(2, branch), step, mode=mode)


def test_masks_follow_the_layout_in_a_layer_of_a_user():
    class Shift(InvertibleModule):
        def __init__(self):
            super().__init__()
            self.net = one_channel()

        def forward(self, a, b, **context):
            return a, b + self.net(a)

        def inverse(self, a, b, **context):
            return a, b - self.net(a)

    def step(net):
        state = [t.mT.requires_grad_() for t in (example(2, 1, 4, 5), example(2, 1, 4, 5, seed=2))]
        loss(*net(*state)).backward()
        return [t.grad for t in state]

    torch.manual_seed(0)
    assert_same(InvertibleSequential(Shift(), Swap(), Shift(), Shift()).double(), step)


@pytest.mark.parametrize("mode", ["invert", "checkpoint", "store"])
def test_integers_are_refused(mode):
    chain = set_backprop(coupling_chain(1), mode)
    with pytest.raises(TypeError, match=r"InvertibleSequential: the state must be floating-point .*int64.*\.float\(\)"):
        chain(torch.ones(2, 4, 6, dtype=torch.long))
    with pytest.raises(TypeError, match="InvertibleSequential: the state must be tensors, got list"):
        chain([torch.ones(2, 4, 6)])


def test_integers_beside_the_state_pass():
    labels = torch.arange(2)

    def step(net):
        x = [t.requires_grad_() for t in (example(2, 2, 6), example(2, 2, 6, seed=2))]
        passed, *outputs = net(labels, *x)
        assert torch.equal(passed, labels)
        loss(*outputs).backward()
        return [t.grad for t in x]

    assert_same(coupling_chain(split=False), step)


def test_two_devices_are_refused():
    chain = coupling_chain(split=False)
    with pytest.raises(
        ValueError, match=r"InvertibleSequential: the state must be on one device, got \['cpu', 'meta'\]"
    ):
        chain(torch.ones(2, 2, 6), torch.ones(2, 2, 6, device="meta"))


def test_errors_name_the_class_that_was_written():
    class MyChain(InvertibleSequential):
        pass

    x, kernel = torch.ones(1, 4, 6), nn.Conv1d(2, 2, 1)
    chain = MyChain(AdditiveCoupling(kernel))
    for mode in ("invert", "checkpoint"):
        y = set_backprop(chain, mode)(x.requires_grad_())
        kernel.weight.data = kernel.weight.data.clone()
        with torch.no_grad():
            kernel.weight.mul_(2)
        with pytest.raises(RuntimeError, match="^MyChain: (a parameter|one of the variables)"):
            y.sum().backward()
    with pytest.raises(ValueError, match="^ResidualCoupling: split"):
        ResidualCoupling(1, 5)(torch.ones(1, 6, 4))
    with pytest.raises(ValueError, match="^InvertibleConvolution: channels|^InvertibleConvolution: split"):
        InvertibleConvolution(1, 4)(torch.ones(1, 5, 4))
    with pytest.raises(RuntimeError, match="^PlainUNet|^Sequential: a parameter"):
        branch = nn.Sequential(nn.Conv1d(2, 2, 1))
        y = run_checkpointed(branch, torch.ones(1, 2, 3, requires_grad=True))
        with torch.no_grad():
            branch[0].weight.mul_(2)
        y.sum().backward()


def test_state_is_float32_under_autocast():
    """A convolution before the chain returns bfloat16: in that type, sums of branches could not be undone."""
    chain, x = coupling_chain(12, image_branch), example(3, 4, 5, 5).bfloat16()

    def gradients(net):
        with torch.autocast("cpu", torch.bfloat16):
            y = net(x)
        assert y.dtype == torch.float32
        return torch.autograd.grad(y.square().sum(), list(net.parameters()))

    stored, inverted = (gradients(set_backprop(chain.float(), mode)) for mode in ("store", "invert"))
    scale = max(g.abs().max() for g in stored)
    assert max((a - b).abs().max() for a, b in zip(stored, inverted, strict=True)) < 1e-3 * scale


def test_metatensor_keeps_its_type_and_meta():
    def step(net):
        affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))
        x = MetaTensor(example(1, 4, 5, 5), affine=affine, meta={"subject": "01"}).requires_grad_()
        y = net(x)
        assert isinstance(y, MetaTensor) and y.meta["subject"] == "01" and torch.equal(y.affine, affine)
        loss(y.as_tensor()).backward()
        return [y.detach().as_tensor(), x.grad]

    assert_same(coupling_chain(3, image_branch), step)


def test_sparse_buffer():
    class Operator(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(2, 2, 1)
            self.register_buffer("matrix", torch.tril(torch.ones(6, 6, dtype=torch.float64)).to_sparse())

        def forward(self, x):
            return torch.tanh((self.matrix @ self.conv(x).flatten(0, 1).T).T.reshape(x.shape))

    chain = coupling_chain(2, Operator)
    dense = copy.deepcopy(chain)
    for m in dense.modules():
        if isinstance(m, Operator):
            m.matrix = m.matrix.to_dense()
    expected = train(set_backprop(dense, "store"), example())
    torch.testing.assert_close(train(chain, example()), expected)


def test_in_place_operation_in_the_middle_of_a_branch():
    def branch():
        return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.ReLU(True), nn.Conv1d(2, 2, 1), nn.SiLU(True))

    assert_same(coupling_chain(3, branch), lambda net: train(net, example()))


@pytest.mark.parametrize("grad", [True, False])
def test_in_place_operation_on_the_input_of_a_branch_raises(grad):
    chain = coupling_chain(2, lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Conv1d(2, 2, 1)))
    with (
        torch.set_grad_enabled(grad),
        pytest.raises(RuntimeError, match="Sequential changed its input in place.*inplace"),
    ):
        chain(example())


@pytest.mark.parametrize("mode", ["invert", "store"])
def test_in_place_operation_on_what_backward_needs_raises(mode):
    chain = coupling_chain(2, lambda: nn.Sequential(nn.Conv1d(2, 2, 1), nn.Tanh(), nn.ReLU(inplace=True)))
    y = set_backprop(chain, mode)(example())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss(y).backward()


def test_deepcopy_and_pickle():
    chain = coupling_chain(2, lambda: nn.Sequential(nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2)))
    expected = train(copy.deepcopy(chain), example())
    y = chain(example())  # a graph in flight does not matter
    for twin in (copy.deepcopy(chain), pickle.loads(pickle.dumps(coupling_chain(2, Viewing)))):
        assert isinstance(twin, InvertibleSequential) and twin.backprop == "invert"
    found = train(copy.deepcopy(chain), example())
    torch.testing.assert_close(found, expected)
    loss(y).backward()


def test_two_sided_coupling_of_the_same_module_is_copied_as_one():
    shared = nn.Conv1d(2, 2, 1)
    twin = copy.deepcopy(InvertibleSequential(AdditiveCoupling(shared, shared)))
    assert twin[0].f is twin[0].g and twin[0].f is not shared
