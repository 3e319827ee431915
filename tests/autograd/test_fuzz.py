"""Random chains, used in random ways, against plain autograd. A failing seed is a chain to look at."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

from monai_invertible.autograd import Inverse, InvertibleModule, InvertibleSequential, set_backprop
from monai_invertible.networks.layers import AdditiveCoupling, OrthogonalConvolution, OrthogonalCoupling
from tests.autograd.helper import Conditioned, assert_same, example, loss, results

SEEDS = 100


class Plain(nn.Module):
    """A branch that takes no context, in front of one that does."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


def random_branch(choose: random.Random, inputs: int, outputs: int, nested: bool = True) -> nn.Module:
    if nested and inputs == outputs and choose.random() < 0.15:
        return Conditioned(inputs)
    hidden = choose.choice([2, 3, 4])

    def inner_chain() -> nn.Module:
        chain = random_chain(choose, nested=False)
        return Inverse(chain) if choose.random() < 0.5 else chain

    layers: list[nn.Module] = [nn.Conv1d(inputs, hidden, choose.choice([1, 3]), padding="same")]
    for _ in range(choose.randrange(4)):
        layers.append(
            choose.choice(
                [
                    lambda: nn.BatchNorm1d(hidden),
                    lambda: nn.BatchNorm1d(hidden, affine=False, momentum=None),
                    lambda: nn.InstanceNorm1d(hidden, affine=True, track_running_stats=True),
                    lambda: nn.GroupNorm(1, hidden),
                    lambda: nn.Dropout(0.3),
                    lambda: nn.AlphaDropout(0.2),
                    lambda: nn.RReLU(),
                    lambda: nn.LeakyReLU(0.1, inplace=True),
                    lambda: nn.SiLU(inplace=True),
                    lambda: nn.Tanh(),
                    lambda: nn.Sigmoid(),
                    lambda: nn.Softmax(1),
                    lambda: nn.utils.parametrizations.spectral_norm(nn.Conv1d(hidden, hidden, 1)),
                    lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(hidden, hidden, 1)),
                    lambda: nn.Conv1d(hidden, hidden, 3, padding=1, bias=False),
                ]
                + nested * (hidden == 4) * [inner_chain]
            )()
        )  # fmt: skip
    return Plain(*layers, nn.Conv1d(hidden, outputs, 1))


def random_chain(choose: random.Random, nested: bool = True) -> InvertibleSequential:
    """A map of ``(B, 4, L)``."""
    branches: list[tuple[int, int, nn.Module]] = []

    def branch(inputs: int, outputs: int) -> nn.Module:
        known = [b for i, o, b in branches if (i, o) == (inputs, outputs)]
        if known and choose.random() < 0.2:
            return choose.choice(known)
        branches.append((inputs, outputs, random_branch(choose, inputs, outputs, nested)))
        return branches[-1][2]

    layers: list[InvertibleModule] = []
    for _ in range(choose.randint(1, 5)):
        kind = choose.random()
        a = choose.choice([1, 2, 2, 3])
        if layers and kind < 0.1:
            layers.append(choose.choice(layers))
        elif kind < 0.2:
            layers.append(OrthogonalConvolution(4, choose.randint(1, 4)))
        elif kind < 0.35:
            layers.append(OrthogonalCoupling(4, branch(a, 4 - a), split=(a, 4 - a)))
        else:
            sides = choose.choice(["f", "g", "fg", "fg"])
            f = branch(4 - a, a) if "f" in sides else None
            layers.append(AdditiveCoupling(f, branch(a, 4 - a) if "g" in sides else None, split=(a, 4 - a)))
        if choose.random() < 0.15:
            layers[-1] = Inverse(layers[-1])
    if choose.random() < 0.2:
        return InvertibleSequential(InvertibleSequential(*layers[:2]), *layers[2:])
    return InvertibleSequential(*layers)


def random_step(seed: int):
    """Forwards, switches and backwards, the same for every network."""

    def step(net):
        choose = random.Random(seed)
        time = (example(2, 1, 1) / 4).requires_grad_(choose.random() < 0.7)
        leaves = [example(seed=seed).requires_grad_(choose.random() < 0.7), time, *net.parameters()]
        outputs = [net(leaves[0], time=time)]
        if choose.random() < 0.3:
            net.eval()
        if choose.random() < 0.4:
            outputs.append(net.inverse(example(seed=seed + 1), time=time))
        if choose.random() < 0.3:
            outputs.append(net(torch.tanh(outputs[0]), time=time))
        if choose.random() < 0.3:
            net.train()
        total = loss(*choose.sample(outputs, choose.randint(1, len(outputs))))
        wanted = [t for t in leaves if t.requires_grad]
        found = {f"output {i}": t.detach() for i, t in enumerate(outputs)}
        if not total.requires_grad or not wanted:
            return found
        way = choose.random()
        if way < 0.3:
            part = choose.sample(wanted, choose.randint(1, len(wanted)))
            gradients = torch.autograd.grad(total, part, retain_graph=choose.random() < 0.5, allow_unused=True)
            return found | {f"gradient {i}": g for i, g in enumerate(gradients)}
        if way < 0.4:
            gradients = torch.autograd.grad(total, wanted, create_graph=True, allow_unused=True)
            loss(*[g for g in gradients if g is not None and g.requires_grad] or [total]).backward()
        elif way < 0.6:
            total.backward(retain_graph=True)
            outputs[0].sum().backward() if outputs[0].requires_grad else None
        else:
            total.backward()
        return found | {"x": leaves[0].grad, "time": time.grad}

    return step


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_chain(seed):
    choose = random.Random(seed)
    torch.manual_seed(seed)
    chain = random_chain(choose).double()
    if choose.random() < 0.4:
        for p in chain.parameters():
            p.requires_grad_(choose.random() < 0.6)
    chain.train(choose.random() < 0.8)
    try:
        results(set_backprop(copy.deepcopy(chain), "store"), random_step(seed))
    except (
        RuntimeError
    ) as error:  # a branch overwrites what its backward needs: no gradient then, rather than a wrong one
        assert "modified by an inplace operation" in str(error)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            results(chain, random_step(seed))
        return
    # Rounding grows where a norm divides by the spread of a few numbers, and in second derivatives.
    assert_same(chain, random_step(seed), tolerance=1e-7)
