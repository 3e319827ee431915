"""What single layers promise beyond the common properties."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from monai_invertible import InvertibleSequential
from monai_invertible.networks.layers import (
    AdditiveCoupling,
    ChannelSplit,
    GradientUpdate,
    OrthogonalConvolution,
    OrthogonalCoupling,
)
from monai_invertible.operators import FourierSampling


@pytest.mark.parametrize(("channels", "reflections"), [(64, 3), (2, 3), (1, 3), (5, 5)])
def test_householder_matrix_is_orthogonal(channels: int, reflections: int) -> None:
    torch.manual_seed(0)
    u = OrthogonalConvolution(channels, reflections).matrix()
    assert (u.T @ u - torch.eye(channels)).abs().max() < 1e-6
    assert torch.linalg.det(u).item() == pytest.approx((-1) ** min(channels, reflections), abs=1e-5)


def test_householder_matrix_is_the_product_of_its_reflections() -> None:
    torch.manual_seed(0)
    layer = OrthogonalConvolution(6, 2).double()
    h = [torch.eye(6) - 2 * torch.outer(v, v) / (v @ v) for v in layer.vectors]
    torch.testing.assert_close(layer.matrix(), h[1] @ h[0])


def test_orthogonal_convolution_stays_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    layer, x = OrthogonalConvolution(8), torch.randn(1, 8, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.float32
    assert (y.norm() - x.norm()).abs() / x.norm() < 1e-6


def test_orthogonal_coupling_follows_the_paper() -> None:
    torch.manual_seed(0)
    layer, x = OrthogonalCoupling(4, nn.Conv2d(2, 2, 3, padding=1)), torch.randn(2, 4, 5, 5)
    u = layer.basis.matrix()
    x1, x2 = torch.einsum("oc,bchw->bohw", u, x).chunk(2, 1)
    expected = torch.einsum("co,bchw->bohw", u, torch.cat([x1, x2 + layer.coupling.g(x1)], 1))
    torch.testing.assert_close(layer(x), expected)


def test_additive_coupling_follows_the_paper() -> None:
    torch.manual_seed(0)
    f, g, x = nn.Conv1d(2, 2, 1), nn.Conv1d(2, 2, 1), torch.randn(2, 4, 5)
    x1, x2 = x.chunk(2, 1)
    y1 = x1 + f(x2)
    torch.testing.assert_close(AdditiveCoupling(f, g)(x), torch.cat([y1, x2 + g(y1)], 1))


def test_gradient_update_moves_the_memory_by_the_gradient_of_the_data_term() -> None:
    torch.manual_seed(0)
    operator, state = FourierSampling(), torch.randn(1, 6, 5, 4, dtype=torch.float64)
    mask = torch.tensor([1.0, 0, 1, 1]).view(1, 1, 1, 4, 1).double()
    kspace = torch.randn(1, 1, 5, 4, 2, dtype=torch.float64) * mask
    eta = state[:, :2].clone().requires_grad_()
    (0.5 * (operator(eta, mask) - kspace).square().sum()).backward()
    moved = GradientUpdate(operator, 6)(state, zero_filled=operator.adjoint(kspace, mask), mask=mask)
    torch.testing.assert_close(moved[:, :2], state[:, :2])
    torch.testing.assert_close(moved[:, 2:4] - state[:, 2:4], eta.grad)
    assert torch.equal(moved[:, 4:], state[:, 4:])


def test_a_chain_does_not_merge_what_it_splits_again() -> None:
    chain = InvertibleSequential(*(AdditiveCoupling(nn.Conv1d(2, 2, 1)) for _ in range(5)))
    assert [str(step) for step in chain.steps()].count("ChannelSplit") == 1
    assert len(chain.steps()) == 7
    different = InvertibleSequential(*(AdditiveCoupling(nn.Identity(), split=s) for s in [(2, 3), (3, 2)]))
    assert len(different.steps()) == 6


class Scaled(nn.Module):
    def forward(self, x: Tensor, *, factor: Tensor) -> Tensor:
        return factor * x


def test_a_branch_receives_the_context_that_it_names() -> None:
    coupling = AdditiveCoupling(Scaled(), nn.Identity())
    x1, x2 = torch.ones(1, 2), torch.ones(1, 2)
    y = coupling(torch.cat([x1, x2], 1), factor=torch.tensor(3.0), unrelated=torch.tensor(5.0))
    torch.testing.assert_close(y, torch.tensor([[4.0, 4, 5, 5]]))
    with pytest.raises(TypeError, match="factor"):
        coupling(torch.cat([x1, x2], 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AdditiveCoupling(nn.Identity())(torch.ones(1, 5)), r"even.*got 5\. Use split=\(2, 3\)"),
        (lambda: AdditiveCoupling(nn.Identity(), split=(2, 2))(torch.ones(1, 5)), "needs 4 channels, got 5"),
        (lambda: AdditiveCoupling(nn.Linear(2, 3))(torch.ones(1, 4)), r"returned shape \(1, 3\).*\(1, 2\)"),
        (lambda: AdditiveCoupling(None), "at least one branch"),
        (lambda: ChannelSplit((0, 3)), "two positive"),
        (lambda: OrthogonalConvolution(4)(torch.ones(1, 3, 2)), "built for 4 channels, got 3. Use channels=3"),
        (lambda: GradientUpdate(FourierSampling(), 3), "Use channels=4 or more"),
    ],
)
def test_errors_say_what_to_do(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("layer", [lambda: OrthogonalConvolution(4), lambda: OrthogonalCoupling(4, nn.Conv1d(2, 2, 1))])
def test_orthogonal_layers_act_on_the_last_tensor_of_a_state(layer):
    torch.manual_seed(0)
    module = layer()
    beside, x = torch.randn(3), torch.randn(2, 4, 5)
    for function in (module, module.inverse):
        passed, y = function(beside, x)
        assert passed is beside
        torch.testing.assert_close(y, function(x))
