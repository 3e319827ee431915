"""The i-RIM: exact sizes of the paper, its inverse, its exports."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from monai_invertible import InvertibleSequential, set_backprop
from monai_invertible.networks import InvertibleRIM
from monai_invertible.operators import FourierSampling

CHALLENGE = {
    "hidden_channels": (64, 64, 128, 128, 256, 1024, 1024, 256, 128, 128, 64, 64),
    "downsample": (1, 1, 2, 2, 4, 8, 8, 4, 2, 2, 1, 1),
    "multiplicity": 4,
}


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def small(**options: object) -> InvertibleRIM:
    torch.manual_seed(0)
    return InvertibleRIM(2, 2, channels=8, hidden_channels=4, downsample=(1, 2), **options)  # type: ignore[arg-type]


def measurement(h: int = 17, w: int = 20) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    mask = (torch.rand(2, 1, 1, w, 1) < 0.5).float()
    return torch.randn(2, 1, h, w, 2) * mask, mask


def test_parameter_counts_are_those_of_the_published_configurations() -> None:
    with torch.device("meta"):
        assert parameters(InvertibleRIM(2, 1)) == 1_430_528
        assert parameters(InvertibleRIM(2, 8)) == 8 * 1_430_528
        assert parameters(InvertibleRIM(2, 8, **CHALLENGE)) == 275_206_144  # type: ignore[arg-type]


@pytest.mark.parametrize(("shape", "size"), [((1, 64, 480, 320), 39.32e6), ((1, 64, 32, 480, 320), 1258.3e6)])
def test_the_state_has_the_bytes_of_the_papers_table(shape: tuple[int, ...], size: float) -> None:
    assert torch.empty(shape, device="meta").nbytes == pytest.approx(size, rel=1e-3)


def test_the_inverse_runs_different_steps_in_reverse_order() -> None:
    network = InvertibleRIM(2, 4, channels=8, hidden_channels=4, downsample=(1, 2)).double()
    state = torch.randn(1, 8, 9, 8, dtype=torch.float64)
    context = {"zero_filled": torch.randn(1, 2, 9, 8).double(), "mask": torch.ones(1, 1, 1, 8, 1).double()}
    forward = network.chain(state, **context)
    assert (network.chain.inverse(forward, **context) - state).abs().max() < 1e-12
    layers = list(network.chain)
    shuffled = InvertibleSequential(*layers[3:], *layers[:3])
    assert (shuffled.inverse(forward, **context) - state).abs().max() > 1e-3


def test_gradients_reach_the_measured_data() -> None:
    network, (kspace, mask) = small().double(), measurement()
    kspace = kspace.double().requires_grad_()
    grads = []
    for mode in ("invert", "store"):
        (grad,) = torch.autograd.grad(set_backprop(network, mode)(kspace, mask.double()).square().sum(), kspace)
        grads.append(grad)
    assert grads[1].abs().max() > 0
    assert (grads[0] - grads[1]).abs().max() / grads[1].abs().max() < 1e-10


def test_the_unit_of_kspace_does_not_matter() -> None:
    network, (kspace, mask) = small(), measurement()
    torch.testing.assert_close(network(kspace * 1e-5, mask) * 1e5, network(kspace, mask))


def test_each_sample_has_its_own_mask_and_the_mask_is_inferred_from_zeros() -> None:
    network, (kspace, mask) = small(), measurement()
    both = network(kspace, mask)
    torch.testing.assert_close(network(kspace), both)
    for i in range(2):
        torch.testing.assert_close(network(kspace[i : i + 1], mask[i : i + 1]), both[i : i + 1], atol=1e-5, rtol=1e-4)


def test_one_coil_with_unit_sensitivity_is_single_coil() -> None:
    network, (kspace, mask) = small(), measurement()
    unit = torch.tensor([1.0, 0.0]).expand_as(kspace)
    torch.testing.assert_close(network(kspace, mask, unit), network(kspace, mask))


def test_several_coils_reconstruct() -> None:
    network, (_, mask) = small(), measurement()
    maps = torch.randn(2, 3, 17, 20, 2)
    maps = maps / maps.square().sum((1, 4), keepdim=True).sqrt()
    kspace = FourierSampling()(torch.randn(2, 2, 17, 20), mask, maps)
    assert network(kspace, mask, maps).shape == (2, 2, 17, 20)
    with pytest.raises(ValueError, match="sensitivities"):
        network(kspace, mask)


def test_slices_of_a_volume_are_not_down_sampled() -> None:
    network = InvertibleRIM(3, 1, channels=8, hidden_channels=4, downsample=(4,))
    assert network.chain[1].coupling.g.downsample == (1, 4, 4)
    assert network(torch.randn(1, 1, 2, 9, 8, 2)).shape == (1, 2, 2, 9, 8)


def test_the_estimate_starts_from_zeros_or_from_the_zero_filled_image() -> None:
    (kspace, mask), zero_filled = measurement(), FourierSampling().adjoint(*measurement())
    for initial, expected in (("zeros", torch.zeros_like(zero_filled)), ("zero_filled", zero_filled)):
        network = InvertibleRIM(2, 0, channels=8, initial=initial)
        torch.testing.assert_close(network(kspace, mask), expected)
    with pytest.raises(ValueError, match="initial must be"):
        InvertibleRIM(2, 1, initial="ones")


def test_widths_and_factors_must_agree() -> None:
    with pytest.raises(ValueError, match="InvertibleRIM: .* got 2 and 3"):
        InvertibleRIM(2, 1, hidden_channels=(4, 4), downsample=(1, 2, 1))


# torch.jit is deprecated, but python -m monai.bundle ckpt_export still uses it; the trace warns where MONAI's FFT shift
# turns a size into a number, which the comparison at another size covers.
@pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore::torch.jit.TracerWarning")
def test_torchscript_by_trace_holds_at_other_sizes(tmp_path: Path) -> None:
    network = small().eval()
    torch.jit.save(torch.jit.script(network), tmp_path / "network.ts")  # type: ignore[attr-defined]
    loaded = torch.jit.load(tmp_path / "network.ts")
    for size in ((17, 20), (16, 33), (40, 40)):
        kspace, _ = measurement(*size)
        torch.testing.assert_close(loaded(kspace), network(kspace))


def test_torch_export_of_an_evaluated_network() -> None:
    network, (kspace, _) = small().eval(), measurement()
    exported = torch.export.export(network, (kspace,)).module()
    torch.testing.assert_close(exported(kspace), network(kspace))


def test_a_copy_trains_on_its_own() -> None:
    network, (kspace, mask) = small(), measurement()
    other = copy.deepcopy(network)
    network(kspace, mask).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert all(p.grad is None for p in other.parameters())
