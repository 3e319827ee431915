"""Checkerboard attention: which voxels it mixes, by what, how well it is conditioned, and what it costs."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from monai_invertible.autograd import InvertibleSequential
from monai_invertible.memory import LiveBytes
from monai_invertible.networks import CheckerboardAttention

FORMS = ["channel", "token"]
SIZE = (3, 4, 5)


def attention(form: str = "channel", **options: object) -> CheckerboardAttention:
    torch.manual_seed(0)
    return CheckerboardAttention(4, form=form, **options).double()  # type: ignore[arg-type]


def color(size: tuple[int, ...] = SIZE) -> Tensor:
    """Parity of each voxel, the slow and obvious way."""
    parity = torch.empty(size, dtype=torch.long)
    for index in itertools.product(*map(range, size)):
        parity[index] = sum(index) % 2
    return parity


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("form", FORMS)
def test_one_color_stays_and_the_other_is_mixed(form: str, parity: int) -> None:
    x = torch.randn(2, 4, *SIZE).double()
    y = attention(form, parity=parity)(x)
    assert isinstance(y, Tensor)
    stays = color() == parity
    assert torch.equal(y[:, :, stays], x[:, :, stays])
    assert (y[:, :, ~stays] - x[:, :, ~stays]).abs().amin((0, 1)).min() > 0


@pytest.mark.parametrize("form", FORMS)
def test_two_parities_change_every_voxel(form: str) -> None:
    x = torch.randn(1, 4, *SIZE).double()
    y = attention(form, parity=1)(attention(form)(x))
    assert ((y - x).abs().amax(1) > 0).all()


def test_channel_form_is_the_equation() -> None:
    layer, x = attention(offset=1.3, scale=0.2), torch.randn(1, 4, *SIZE).double()
    stays = color() == 0
    a, b = x[0][:, stays], x[0][:, ~stays]
    query, key = layer.query.weight @ a, layer.key.weight @ a
    cosines = torch.nn.functional.cosine_similarity(query[:, None], key[None], dim=2)
    weights = (cosines / 0.2).softmax(1)
    assert torch.allclose(weights.sum(1), torch.ones(4).double())
    y = layer(x)
    assert isinstance(y, Tensor)
    assert torch.allclose(y[0][:, ~stays], weights @ b + 1.3 * b, atol=1e-6)  # the parameters are made in float32


def test_token_form_is_the_equation_and_a_voxel_without_a_partner_stays() -> None:
    layer, x = attention("token", offset=1.3, scale=0.2), torch.randn(1, 4, 3, 3).double()
    stays = color((3, 3)) == 1  # four stay, five would be mixed
    layer.parity = 1
    a, b = x[0][:, stays], x[0][:, ~stays]
    scores = (layer.query.weight @ a).T @ (layer.key.weight @ a)
    weights = (scores / (0.2 * 4**0.5)).softmax(1)
    y = layer(x)
    assert isinstance(y, Tensor)
    assert torch.allclose(y[0][:, ~stays][:, :4], b[:, :4] @ weights.T + 1.3 * b[:, :4], atol=1e-6)
    assert torch.equal(y[0, :, 2, 2], x[0, :, 2, 2])


@pytest.mark.parametrize("form", FORMS)
def test_images_of_a_batch_do_not_mix(form: str) -> None:
    layer, x = attention(form), torch.randn(3, 4, *SIZE).double()
    assert torch.allclose(layer(x), torch.cat([layer(image[None]) for image in x]))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
def test_scale_of_the_voxels_that_stay_does_not_saturate_the_channel_form(form: str) -> None:
    """Cosines, not products: a volume of 128^3 voxels or of large values has the attention of a small one."""
    layer = attention(form)
    x = torch.randn(1, 4, *SIZE).double()
    stays = color() == 0
    louder = torch.where(stays, 100 * x, x)
    y, z = layer(x), layer(louder)
    assert isinstance(y, Tensor) and isinstance(z, Tensor)
    assert torch.allclose(y[:, :, ~stays], z[:, :, ~stays]) == (form == "channel")


@pytest.mark.parametrize(("offset", "bound"), [(1.01, 201.0), (1.5, 5.0)])
@pytest.mark.parametrize("form", FORMS)
def test_conditioning(form: str, offset: float, bound: float) -> None:
    layer = attention(form, offset=offset, scale=0.01)  # nearly a permutation: the worst case
    basis = torch.zeros(4, 4, 2, 2, 2).double()
    stays = color((2, 2, 2)) == 0
    basis[:, :, stays] = torch.randn(4, int(stays.sum())).double()
    matrix = layer._matrix(layer.query.weight @ layer.key.weight.T, False)
    condition = torch.linalg.cond(matrix, p=float("inf"))
    assert 1 < condition <= bound * 1.001
    x = torch.randn(1, 4, 6, 6, 6)
    single = layer.float()
    with torch.no_grad():
        back = single.inverse(single(x))  # type: ignore[arg-type]
    assert (back - x).abs().max() < 1e-6 * bound


@pytest.mark.parametrize("form", FORMS)
def test_autocast_inverts_in_float32(form: str) -> None:
    layer, x = attention(form).float(), torch.randn(1, 4, 6, 6, 6)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        back = layer.inverse(y)  # type: ignore[arg-type]
    assert isinstance(y, Tensor) and y.dtype == torch.float32
    assert (back - x).abs().max() < 1e-5  # type: ignore[operator]


def test_channel_form_needs_no_matrix_of_voxels_and_a_chain_keeps_its_output() -> None:
    x = torch.randn(1, 8, 32, 32, 32)
    chain = InvertibleSequential(*(CheckerboardAttention(8, parity=i % 2) for i in range(6)))
    with LiveBytes() as live:
        y = chain(x)
        kept = live.current
        y.square().mean().backward()  # type: ignore[union-attr]
    state = x.numel() * 4
    assert kept < 1.01 * state
    assert live.peak < 9 * state  # a matrix of voxels would be 16,384 x 16,384: 1,024 states


def test_all_parameters_learn() -> None:
    layer = attention()
    layer(torch.randn(2, 4, *SIZE).double()).square().mean().backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())


def test_constant_images_have_finite_gradients() -> None:
    layer, x = attention(), torch.zeros(1, 4, *SIZE).double().requires_grad_()
    layer(x).sum().backward()  # type: ignore[union-attr]
    assert x.grad is not None and x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("parity", [0, 1])
def test_a_single_voxel(form: str, parity: int) -> None:
    layer, x = attention(form, parity=parity), torch.randn(1, 4, 1, 1, 1).double()
    y = layer(x)
    assert isinstance(y, Tensor) and y.isfinite().all()
    assert torch.allclose(layer.inverse(y), x)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parity": 2}, "parity must be 0 or 1, got 2"),
        ({"form": "voxel"}, 'form must be "channel" or "token"'),
        ({"offset": 1.0}, "offset must be above 1"),
        ({"scale": 0.0}, "scale above 0"),
    ],
)
def test_arguments_out_of_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attention(**options)  # type: ignore[arg-type]


def test_other_channels() -> None:
    with pytest.raises(ValueError, match="built for channels=4, got a state of 3 channels"):
        attention()(torch.randn(1, 3, 4, 4).double())
