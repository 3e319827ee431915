"""What the engine asks of torch without a public name: the answers, and what happens where a torch has none."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks

from monai_invertible.autograd import torch_internals
from monai_invertible.autograd.torch_internals import (
    graph_is_retained,
    holders,
    inside_transform,
    is_exporting,
    is_fake,
    outside_transforms,
    saving_hooks,
    storage,
    version,
    writes_in_eval,
)
from tests.autograd.helper import assert_same, conv_branch, coupling_chain, example, train


class Watched(torch.autograd.Function):
    """Notes, in backward, what ``ask`` answers."""

    @staticmethod
    def forward(ctx, x, ask, found):
        ctx.ask, ctx.found = ask, found
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        ctx.found.append(ctx.ask())
        return grad, None, None


def asked_in_backward(ask, **options):
    x, found = torch.ones(2, requires_grad=True), []
    torch.autograd.grad(Watched.apply(x, ask, found).sum(), x, **options)
    return found


def test_version_counts_changes_in_place():
    x = torch.zeros(2)
    before = version(x)
    x.view(1, 2).add_(1)
    assert version(x) == before + 1
    with torch.inference_mode():
        assert version(torch.zeros(2).add_(1)) == 0


@pytest.mark.parametrize("kind", ["cpu", "meta", "fake"])
def test_storage_is_shared_by_views_alone(kind):
    with FakeTensorMode() if kind == "fake" else torch.device(kind):
        x, other = torch.zeros(2, 3), torch.zeros(2, 3)
        assert storage(x) == storage(x.view(6)) == storage(x.detach()) != storage(other)


def test_storage_of_a_tensor_without_one():
    x, y = torch.eye(2).to_sparse(), torch.eye(2).to_sparse()
    assert storage(x) == storage(x) != storage(y)


def test_holders():
    x = torch.zeros(3)
    memory = x.untyped_storage()
    assert holders(memory) == 2
    view = x[1:]
    assert holders(memory) == 3
    del view
    assert holders(memory) == 2


@pytest.mark.parametrize(
    "options, expected", [({}, False), ({"retain_graph": True}, True), ({"create_graph": True}, True)]
)
def test_retained_graph(options, expected):
    assert asked_in_backward(graph_is_retained, **options) == [expected]


def test_inside_transform():
    found = []

    def look(x):
        found.append(inside_transform())
        return x.sin()

    x = torch.ones(2)
    torch.func.vmap(look)(x)
    torch.func.jvp(look, (x,), (x,))
    torch.func.grad(lambda x: look(x).sum())(x)
    with forward_ad.dual_level():
        look(x)
    assert found == [True] * 4 and not inside_transform()


@pytest.mark.parametrize("batched", ["vmap", "is_grads_batched"])
def test_outside_transforms(batched):
    """Random numbers can be drawn, and only within."""
    found = []

    def draw(x):
        with outside_transforms():
            found.append(torch.rand(3).shape)
            with outside_transforms():  # nests
                found.append(torch.rand(3).shape)
        with pytest.raises(RuntimeError, match="vmap"):
            torch.rand(3)
        return x

    x = torch.ones(2, requires_grad=True)
    if batched == "vmap":
        torch.func.vmap(draw)(x)
    else:
        with saved_tensors_hooks(lambda t: t, draw):
            y = x.sin()
        torch.autograd.grad(y, x, torch.eye(2), is_grads_batched=True)
    assert found == [(3,), (3,)]
    torch.rand(3)


def test_outside_transforms_after_an_error():
    def fail(x):
        with outside_transforms():
            raise KeyError("within")

    with pytest.raises(KeyError, match="within"):
        torch.func.vmap(fail)(torch.ones(2))
    assert not inside_transform()


def test_saving_hooks():
    assert saving_hooks() is None
    with saved_tensors_hooks(abs, repr):
        assert saving_hooks() == (abs, repr)
    assert saving_hooks() is None


class TellsExport(nn.Module):
    def forward(self, x):
        return x + 1 if is_exporting() else x


def test_exporting():
    """Neither in plain Python nor in a compiled graph; a graph of its own for the export."""
    module, x = TellsExport(), torch.zeros(1)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert torch.equal(module(x), x) and torch.equal(compiled(x), x)
    assert torch.equal(torch.export.export(module, (x,)).module()(x), x + 1)
    torch._dynamo.reset()
    assert torch.equal(compiled(x), x)


def test_fake():
    with FakeTensorMode():
        assert is_fake(torch.zeros(2)) and is_fake(torch.zeros(2).view(1, 2))
    assert is_fake(torch.zeros(2, device="meta"))
    assert not is_fake(torch.zeros(2)) and not is_fake(nn.Parameter(torch.zeros(2)))


def test_buffers_written_in_eval_mode():
    """Whichever torch counts a change, of whichever norm, is known."""
    norms = [
        kind(2, track_running_stats=tracking).eval()
        for kind in (nn.BatchNorm1d, nn.InstanceNorm1d)
        for tracking in (False, True)
    ]
    for norm in norms:
        before = [version(b) for b in norm.buffers()]
        norm(torch.ones(2, 2, 4))
        assert before == [version(b) for b in norm.buffers()] or writes_in_eval(norm)


def hooked_dropout():
    branch = nn.Sequential(conv_branch(), nn.Dropout(0.5))
    branch[0].register_forward_hook(lambda *_: None)
    return branch


MISSING = [
    (torch._C, "_storage_Use_Count"),
    (torch._C, "_vmapmode_increment_nesting"),
    (torch._C._autograd, "_get_current_graph_task_keep_graph"),
    (torch._C._autograd, "_top_saved_tensors_default_hooks"),
    (torch._C._functorch, "peek_interpreter_stack"),
    (forward_ad, "_current_level"),
]


@pytest.mark.parametrize("owner, name", MISSING, ids=[name for _, name in MISSING])
def test_gradients_on_a_torch_that_lacks_a_name(owner, name, monkeypatch):
    """Memory or a refusal, never a wrong result."""
    asked = []

    class Without:
        def __getattr__(self, other):
            if other == name:
                asked.append(name)
                raise AttributeError(name)
            return getattr(owner, other)

    monkeypatch.setattr(torch_internals, "torch", Lacking(torch, owner, Without()))
    assert_same(coupling_chain(3, hooked_dropout), lambda net: train(net, example()))
    assert asked


class Lacking:
    """``original`` with ``part``, found by any path of attributes, replaced."""

    def __init__(self, original, part, replacement):
        self.original, self.part, self.replacement = original, part, replacement

    def __getattr__(self, name):
        found = getattr(self.original, name)
        if found is self.part:
            return self.replacement
        if type(found) is type(torch):  # a module, which may contain the part
            return Lacking(found, self.part, self.replacement)
        return found
