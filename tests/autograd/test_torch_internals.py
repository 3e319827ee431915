"""What the engine asks of torch without a public name, with it and without it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from monai_invertible.autograd import set_backprop, torch_internals
from monai_invertible.memory import LiveBytes
from tests.autograd.helper import assert_same, coupling_chain, example, loss, train


def test_version_counts_changes_in_place():
    t = torch.zeros(2)
    before = torch_internals.version(t)
    t.add_(1)
    t.view(-1).mul_(2)
    assert torch_internals.version(t) == before + 2
    with torch.inference_mode():
        assert torch_internals.version(torch.zeros(1).add_(1)) == 0


def test_storage_identifies_memory():
    t = torch.zeros(4)
    assert torch_internals.storage(t) == torch_internals.storage(t[1:]) != torch_internals.storage(t.clone())
    with FakeTensorMode():
        fake = torch.empty(4)
        assert torch_internals.storage(fake) == torch_internals.storage(fake[1:]) != torch_internals.storage(fake + 1)
    a, b = torch.eye(2).to_sparse(), torch.eye(2).to_sparse()
    assert torch_internals.storage(a) == torch_internals.storage(a) != torch_internals.storage(b)


def test_holders_of_memory():
    t = torch.zeros(4)
    alone = torch_internals.holders(t.untyped_storage())
    other = t.detach()
    assert torch_internals.holders(t.untyped_storage()) == alone + 1
    del other
    assert torch_internals.holders(t.untyped_storage()) == alone


def test_graph_is_retained_or_not():
    found = []
    with saved_tensors_hooks(lambda t: t, lambda t: found.append(torch_internals.graph_is_retained()) or t):
        y = torch.ones(1, requires_grad=True).exp()
    y.backward(retain_graph=True)
    y.backward()
    assert found == [True, False]


def test_inside_transform():
    def look(x):
        found.append(torch_internals.inside_transform())
        with torch_internals.outside_transforms():
            found.append(torch_internals.inside_transform())
        return x.sum()

    found = []
    torch.func.grad(look)(torch.ones(2))
    torch.func.vmap(look)(torch.ones(2, 2))
    with torch.autograd.forward_ad.dual_level():
        found.append(torch_internals.inside_transform())
    look(torch.ones(1))
    assert found == [True, False, True, False, True, False, False]


def test_random_numbers_outside_of_a_batched_backward():
    x = torch.ones(3, requires_grad=True)
    with saved_tensors_hooks(lambda t: t, lambda t: t * draw()):
        y = x.exp()

    def draw():
        with torch_internals.outside_transforms():
            return torch.rand(())

    torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True)
    assert torch_internals.batched_backwards() == 0


def test_saving_hooks():
    assert torch_internals.saving_hooks() is None
    hooks = (lambda t: t), (lambda t: t)
    with saved_tensors_hooks(*hooks):
        assert torch_internals.saving_hooks() == hooks


def test_fake_tensors():
    assert torch_internals.is_fake(torch.empty(1, device="meta")) and not torch_internals.is_fake(torch.empty(1))
    with FakeTensorMode():
        assert torch_internals.is_fake(torch.empty(1)) and torch_internals.is_fake(nn.Parameter(torch.empty(1)))


def test_buffers_written_in_eval_mode():
    """Whichever torch counts a change, of whichever norm, is known."""
    for kind in (nn.BatchNorm1d, nn.InstanceNorm1d):
        for tracks in (False, True):
            norm = kind(2, track_running_stats=tracks).eval()
            before = [torch_internals.version(b) for b in norm.buffers()]
            norm(torch.ones(2, 2, 4))
            after = [torch_internals.version(b) for b in norm.buffers()]
            assert before == after or torch_internals.writes_in_eval(norm)


def dropout():
    return nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), nn.Dropout(0.5), nn.Tanh())


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (torch._C, "_storage_Use_Count"),
        (torch._C._autograd, "_get_current_graph_task_keep_graph"),
        (torch._C._autograd, "_top_saved_tensors_default_hooks"),
        (torch._C, "_vmapmode_increment_nesting"),
        (torch.autograd.forward_ad, "_current_level"),
        (torch._C._functorch, "peek_interpreter_stack"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_gradients_without_it(owner, name, monkeypatch):
    """A torch that lacks one costs memory or a refusal, never a wrong gradient."""
    chain = coupling_chain(3, dropout)
    expected = assert_same(chain, lambda net: train(net, example()))
    if name != "_top_saved_tensors_default_hooks":  # torch's own checkpoint needs it
        monkeypatch.delattr(owner, name)
    else:
        monkeypatch.setattr(torch_internals, "saving_hooks", lambda: None)
    got = copy.deepcopy(chain)
    torch.manual_seed(7)
    got.zero_grad()
    with LiveBytes() as live:
        loss(set_backprop(got, "invert")(example())).backward()
    assert live.peak > 0
    for name, p in got.named_parameters():
        torch.testing.assert_close(p.grad, expected["parameters"][name], rtol=1e-9, atol=1e-9)
