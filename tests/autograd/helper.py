"""The oracle of the engine's tests: the same network, deep-copied, trained by plain autograd (``backprop="store"``)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from monai_invertible.autograd import InvertibleSequential, set_backprop
from monai_invertible.networks.layers import AdditiveCoupling

EXACT = 1e-10  # relative to the largest number of its kind, in float64
Step = Callable[[nn.Module], Any]


def conv_branch(channels: int = 2) -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(channels, 3, 3, padding=1), nn.InstanceNorm1d(3), nn.LeakyReLU(), nn.Conv1d(3, channels, 1)
    )


def coupling_chain(
    depth: int = 3,
    branch: Callable[[], nn.Module] = conv_branch,
    *,
    split: Any = None,
    dtype: torch.dtype = torch.float64,
) -> InvertibleSequential:
    """``depth`` two-sided couplings; with the default branches a map of ``(B, 4, L)``."""
    torch.manual_seed(0)
    chain = InvertibleSequential(*[AdditiveCoupling(branch(), branch(), split=split) for _ in range(depth)])
    return chain.to(dtype)


def example(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape or (2, 4, 6), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def train(network: nn.Module, *inputs: Tensor, **context: Any) -> dict[str, Tensor | None]:
    """One training step with inputs and floating-point context as leaves: outputs and their gradients."""
    state = [t.detach().clone().requires_grad_() for t in inputs]
    context = {k: v.detach().clone().requires_grad_(v.is_floating_point()) for k, v in context.items()}
    outputs = network(*state, **context)
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    loss(*outputs).backward()
    leaves = {f"input {i}": t for i, t in enumerate(state)} | context
    return {f"output {i}": t.detach() for i, t in enumerate(outputs)} | {k: t.grad for k, t in leaves.items()}


def loss(*outputs: Tensor) -> Tensor:
    """A scalar whose gradient differs from place to place."""
    total = torch.zeros((), dtype=outputs[0].dtype, device=outputs[0].device)
    for i, t in enumerate(outputs):
        weights = 1 + i + torch.linspace(0, 1, t.numel(), dtype=t.dtype, device=t.device).view(t.shape)
        total = total + (t * weights).square().sum()
    return total


def results(network: nn.Module, step: Step) -> dict[str, Any]:
    """What a step returns and leaves behind: parameter gradients, buffers, the random streams."""
    torch.manual_seed(7)
    network.zero_grad()
    found = step(network)
    if not isinstance(found, dict):
        found = dict(enumerate(found if isinstance(found, (tuple, list)) else [found]))
    return {
        "found": found,
        "parameters": {k: None if p.grad is None else p.grad.clone() for k, p in network.named_parameters()},
        "buffers": {k: b.clone() for k, b in network.named_buffers()},
        "random": {"stream": torch.get_rng_state()}
        | {f"stream of GPU {i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())},
    }


def assert_same(network: nn.Module, step: Step, tolerance: float = EXACT, mode: str = "invert") -> dict[str, Any]:
    """``step(network)`` finds and leaves behind the same, whether the network stores or recomputes; returns it."""
    stored = set_backprop(copy.deepcopy(network), "store")
    expected = results(stored, step)
    got = results(set_backprop(network, mode), step)
    for kind in expected:
        assert_close(got[kind], expected[kind], tolerance)
    return got


def assert_close(got: dict[Any, Any], expected: dict[Any, Any], tolerance: float = EXACT) -> None:
    """Equal tensors, up to a part of the largest among them (a bias in front of a norm has no gradient of its own)."""
    assert got.keys() == expected.keys()
    got, expected = ({k: t.detach() if isinstance(t, Tensor) else t for k, t in d.items()} for d in (got, expected))
    tensors = [t for t in expected.values() if isinstance(t, Tensor) and t.numel()]
    scale = max([float(t.abs().max()) for t in tensors if t.dtype != torch.uint8] + [1e-300])
    for key, b in expected.items():
        a = got[key]
        if not isinstance(b, Tensor):
            assert a == b, f"{key}: {a} instead of {b}"
            continue
        assert a is not None, f"{key}: no gradient"
        assert a.shape == b.shape and a.dtype == b.dtype and type(a) is type(b), key
        error = float((a.double() - b.double()).abs().max()) / scale if b.numel() else 0.0
        assert error <= tolerance, f"{key}: relative error {error:.1e}"


class Counted(nn.Module):
    """A branch that counts its evaluations, over all copies.

    By a function: a list of its own would be put back after a recomputation, as all attributes are.
    """

    def __init__(self, branch: nn.Module, calls: list[int]) -> None:
        super().__init__()
        self.branch = branch

        def count() -> None:
            calls[0] += 1

        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        self.count()
        return self.branch(x)


class Conditioned(nn.Module):
    """A branch that reads one context tensor, ``time``."""

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(self.conv(x)) * torch.exp(time)
