"""The U-Nets of InvRes: exact inverse, flat memory, sizes, widths, export, the variational branch."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from torch import Tensor, nn

from monai_invertible import set_backprop, set_drift_guard
from monai_invertible.autograd import InvertibleSequential
from monai_invertible.memory import LiveBytes, estimate_training_step
from monai_invertible.networks import FullyInvertibleUNet, PartiallyInvertibleUNet, PlainUNet
from tests.tolerances import GRADIENT

NETS = [FullyInvertibleUNet, PartiallyInvertibleUNet, PlainUNet]
INVERTIBLE = NETS[:2]
FIVE_LEVELS: dict[str, Any] = {"channels": (8, 16, 32, 64, 128), "strides": (2, 2, 2, 2)}
PAPER: dict[str, Any] = {"channels": (32, 64, 128, 256, 512), "strides": (2, 2, 2, 2)}
MATCHED: dict[str, Any] = {"channels": (32, 64, 128, 192, 288), "strides": (2, 2, 2, 2)}  # the baseline, as large
SIZES = [pytest.param(1, 4, 128, id="BraTS"), pytest.param(4, 2, 64, id="iSeg")]


def small(kind: type[nn.Module], **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return kind(2, 1, 2, (4, 8, 16), (2, 2), **options).double()


# ---------------------------------------------------------------------------------------------- the chain of the fully


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 5e-6)])
@pytest.mark.parametrize("downsample", ["squeeze", "cayley"])
def test_inverse_of_the_core_at_five_levels(downsample: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    network = FullyInvertibleUNet(3, 1, 1, **FIVE_LEVELS, downsample=downsample).to(dtype)
    state = (torch.randn(1, 4, 32, 32, 32, dtype=dtype), torch.randn(1, 4, 32, 32, 32, dtype=dtype))
    with torch.no_grad():
        outputs = network.core(*state)
        back = network.core.inverse(*outputs)
    assert not torch.allclose(outputs[0], state[0], atol=0.1)
    assert max((a - b).abs().max() for a, b in zip(back, state, strict=True)) < tolerance


def test_all_couplings_of_the_fully_invertible_net_are_one_chain_without_full_width_tensors() -> None:
    """Nothing of the first level is ever concatenated: its halves are replaced and freed one by one."""
    network = small(FullyInvertibleUNet)
    shapes = []
    state: tuple[Tensor, ...] = (torch.randn(1, 2, 8, 8).double(), torch.randn(1, 2, 8, 8).double())
    for step in network.core.steps():
        state = step.forward(*state)
        shapes.append([tuple(t.shape[1:]) for t in state])
        assert sum(t.numel() for t in state) == 4 * 64
    assert max(len(s) for s in shapes) == 4 and all((4, 8, 8) not in s for s in shapes)
    assert shapes[-1] == [(2, 8, 8)] * 2


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("kind", NETS)
def test_gradients_at_five_levels_equal_stored_ones(kind: type[nn.Module], units: int) -> None:
    torch.manual_seed(0)
    options = {} if kind is PlainUNet else {"num_res_units": units}
    network = kind(3, 1, 2, (4, 8, 16, 32, 64), ((2, 2, 1),) * 4, **options).double()
    x = torch.randn(1, 1, 32, 32, 3, dtype=torch.float64)

    def gradients(net: nn.Module) -> list[Tensor]:
        return list(torch.autograd.grad(net(x).square().mean(), list(net.parameters())))

    expected = gradients(set_backprop(copy.deepcopy(network), "store"))
    scale = max(g.abs().max() for g in expected)
    for mode in ("checkpoint",) if kind is PlainUNet else ("invert", "checkpoint"):
        found = gradients(set_backprop(network, mode))
        assert max((a - b).abs().max() for a, b in zip(found, expected, strict=True)) / scale < GRADIENT[torch.float64]


@pytest.mark.parametrize("kind", INVERTIBLE)
def test_memory_is_flat_in_the_couplings_of_a_level(kind: type[nn.Module]) -> None:
    """But for the gradients of their parameters."""

    def peak(units: int, mode: str) -> int:
        report = estimate_training_step(
            partial(kind, 3, 1, 2, (8, 16, 32), (2, 2), num_res_units=units, backprop=mode), (1, 1, 32, 32, 32)
        )
        return report.peak - report.parameters - report.gradients - report.optimizer

    assert peak(6, "invert") <= 1.03 * peak(2, "invert")
    assert peak(6, "store") > 2 * peak(2, "store")


@pytest.mark.parametrize(("batch", "modalities", "size"), SIZES)
def test_peak_at_the_papers_sizes(batch: int, modalities: int, size: int) -> None:
    """Simulated bytes of living tensors: in the paper's order, and well below its ratio of 0.46."""

    def report(kind: type[nn.Module], options: dict[str, Any], mode: str) -> Any:
        build = partial(kind, 3, modalities, 3, **options, backprop=mode)
        return estimate_training_step(build, (batch, modalities, size, size, size), optimizer=None)

    baseline = report(PlainUNet, MATCHED, "store")
    partially = report(PartiallyInvertibleUNet, PAPER, "invert")
    fully = report(FullyInvertibleUNet, PAPER, "invert")
    assert baseline.parameters == pytest.approx(fully.parameters, rel=0.1)
    assert baseline.parameters == pytest.approx(partially.parameters, rel=0.1)
    assert baseline.peak > partially.peak > fully.peak
    assert fully.peak <= 0.36 * baseline.peak
    assert fully.peak <= 0.27 * report(FullyInvertibleUNet, PAPER, "store").peak
    assert fully.peak < report(FullyInvertibleUNet, PAPER, "checkpoint").peak


def test_resampling_keeps_no_input() -> None:
    network = small(FullyInvertibleUNet, downsample="cayley", num_res_units=1)
    set_drift_guard(network, None, None)  # keeps a few numbers
    state = (torch.randn(1, 2, 8, 8).double(), torch.randn(1, 2, 8, 8).double())
    with LiveBytes() as live:
        outputs = network.core(*state)
        assert live.current == sum(t.nbytes for t in outputs)


# -------------------------------------------------------------------------------------------------- widths and strides


def test_widths_follow_the_rule_of_the_iunet() -> None:
    network = FullyInvertibleUNet(3, 1, 1, (32, 64, 128), (2, 2))
    assert network.channels == (32, 64, 128)
    skips = [tuple(t.shape[1] for t in network.core[0](*[torch.rand(1, 16, 8, 8, 8)] * 2))]
    assert skips == [(16, 8, 32, 16, 128)]  # of 32 channels 16 + 8 stay and 8 go down, of 64 it is 32 + 16 and 16


def test_widths_that_cannot_be_had_are_reported() -> None:
    with pytest.warns(UserWarning, match=r"channels=\(30, 60\) cannot be had .* The levels have channels=\(30, 64\)"):
        network = FullyInvertibleUNet(3, 1, 1, (30, 60), (2,))
    assert network.channels == (30, 64)
    assert network(torch.rand(1, 1, 4, 4, 4)).shape == (1, 1, 4, 4, 4)


@pytest.mark.parametrize("kind", INVERTIBLE)
def test_odd_widths_and_anisotropic_strides(kind: type[nn.Module]) -> None:
    channels = (5, 8, 12)
    network = kind(3, 1, 2, channels, ((1, 2, 2), (2, 2, 1))).double()
    x = torch.randn(1, 1, 4, 8, 8, dtype=torch.float64)
    assert network.channels == channels
    expected = set_backprop(copy.deepcopy(network), "store")(x)
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize(
    ("channels", "strides", "message"),
    [
        ((4, 8), (2, 2), "strides must be one fewer than channels"),
        ((4,), (), "strides must be one fewer than channels"),
        ((4, 8), ((2, 2, 2),), "a stride must be a positive whole number, or 2 of them"),
        ((4, 8), (0,), "a stride must be a positive whole number"),
        ((4, 8), (2.0,), "a stride must be a positive whole number"),
        ((0, 8), (2,), "strides must be one fewer than channels, which must be at least two positive numbers"),
    ],
)
def test_levels_that_make_no_network(kind: type[nn.Module], channels: Any, strides: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"{kind.__name__}: {message}"):
        kind(2, 1, 1, channels, strides)


@pytest.mark.parametrize("kind", INVERTIBLE)
def test_a_monai_unets_configuration_is_one_of_ours(kind: type[nn.Module]) -> None:
    """Replacing ``_target_`` is all: the arguments that configurations give to MONAI's UNet mean the same here."""
    config: dict[str, Any] = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [4, 8, 16],
        "strides": [2, 2],
        "kernel_size": 3,
        "num_res_units": 2,
        "act": "PRELU",
        "norm": "batch",
        "dropout": 0.1,
        "bias": True,
    }
    x = torch.randn(2, 1, 8, 8, 8)
    assert kind(**config)(x).shape == UNet(**config)(x).shape == (2, 2, 8, 8, 8)


def test_other_errors_of_the_constructor() -> None:
    with pytest.raises(ValueError, match="FullyInvertibleUNet: spatial_dims must be 1, 2 or 3, got 4"):
        FullyInvertibleUNet(4, 1, 1, (4, 8), (2,))
    for size in ((8, 8, 8), (2, 1)):
        with pytest.raises(
            ValueError, match=r"PlainUNet: vae_size must be 2 numbers, one of them larger than .*\(2, 2\)"
        ):
            PlainUNet(2, 1, 1, (4, 8), (2,), vae_size=size)
    with pytest.raises(ValueError, match="needs at least two channels to split"):
        FullyInvertibleUNet(2, 1, 1, (1, 4), (2,))
    with pytest.raises(ValueError, match="orthogonal_map must be .* got 'pool'"):
        FullyInvertibleUNet(2, 1, 1, (4, 8), (2,), downsample="pool")
    with pytest.raises(ValueError, match="ResidualCoupling: channels must be at least 2"):
        PartiallyInvertibleUNet(2, 1, 1, (1, 4), (2,))
    with pytest.raises(ValueError, match="num_res_units must be at least 1, got 0"):
        FullyInvertibleUNet(2, 1, 1, (4, 8), (2,), num_res_units=0)
    with pytest.raises(ValueError, match=r"PlainUNet: backprop must be one of \('checkpoint', 'store'\), got 'invert'"):
        PlainUNet(2, 1, 1, (4, 8), (2,), backprop="invert")


# --------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("size", [(16, 16), (13, 18), (5, 3), (1, 1)])
def test_any_size_is_segmented(kind: type[nn.Module], size: tuple[int, int]) -> None:
    network = small(kind)
    assert network(torch.randn(2, 1, *size, dtype=torch.float64)).shape == (2, 2, *size)


@pytest.mark.parametrize("kind", NETS)
def test_a_padded_image_is_segmented_as_its_padded_self(kind: type[nn.Module]) -> None:
    network = small(kind).eval()
    x = torch.randn(1, 1, 9, 12, dtype=torch.float64)
    padded = nn.functional.pad(x, (0, 0, 0, 3), mode="replicate")
    torch.testing.assert_close(network(x), network(padded)[:, :, :9])


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 1, 8, 8, 8), (1, 8, 8), (0, 1, 8, 8), (1, 1, 0, 8)])
def test_images_of_another_kind_are_refused(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__}: an image must have shape \(B, 1, H, W\), got"):
        small(kind)(torch.randn(shape, dtype=torch.float64))


@pytest.mark.parametrize("kind", NETS)
def test_sliding_window_takes_the_network_with_its_branch(kind: type[nn.Module]) -> None:
    """One window is the network itself."""
    network = small(kind, vae_size=(8, 8)).eval()
    x = torch.randn(1, 1, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(SlidingWindowInferer((32, 32), mode="gaussian")(x, network), network(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("kind", NETS)
def test_scripted_network_takes_other_sizes(kind: type[nn.Module]) -> None:
    network = small(kind, vae_size=(8, 8)).float().eval()
    scripted = torch.jit.script(network)
    for size in ((20, 15), (16, 16)):
        image = torch.randn(1, 1, *size)
        torch.testing.assert_close(scripted(image), network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", NETS)
def test_exported_network_takes_other_sizes(kind: type[nn.Module]) -> None:
    """Multiples of the strides."""
    network = small(kind).float().eval()
    sizes = {2: 4 * torch.export.Dim("h", min=2, max=64), 3: 4 * torch.export.Dim("w", min=2, max=64)}
    program = torch.export.export(network, (torch.randn(1, 1, 20, 24),), dynamic_shapes=(sizes,))
    image = torch.randn(1, 1, 32, 16)
    torch.testing.assert_close(program.module()(image), network(image), rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------------------------- the variational branch


@pytest.mark.parametrize("kind", NETS)
def test_the_branch_speaks_in_training_only(kind: type[nn.Module]) -> None:
    network = small(kind, vae_size=(9, 8))
    x = torch.randn(3, 1, 9, 8, dtype=torch.float64)
    logits, l2, kl = network(x)
    assert logits.shape == (3, 2, 9, 8) and l2.shape == kl.shape == (3,)
    assert (l2 > 0).all() and (kl >= 0).all()
    evaluated = network.eval()(torch.randn(1, 1, 30, 11, dtype=torch.float64))
    assert isinstance(evaluated, Tensor) and evaluated.shape == (1, 2, 30, 11)


def test_the_branch_refuses_patches_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"built for images of vae_size=\(9, 8\), got \(8, 8\)"):
        small(FullyInvertibleUNet, vae_size=(9, 8))(torch.randn(1, 1, 8, 8).double())


@pytest.mark.parametrize("kind", INVERTIBLE)
def test_the_branch_trains_in_bfloat16(kind: type[nn.Module]) -> None:
    network = small(kind, vae_size=(8, 8)).float()
    with torch.autocast("cpu", torch.bfloat16):
        logits, l2, kl = network(torch.randn(1, 1, 8, 8))
    (logits.float().square().mean() + l2.sum() + kl.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert l2.dtype == kl.dtype == torch.float32


def test_chains_of_a_network_are_switched_together() -> None:
    network = set_backprop(small(PartiallyInvertibleUNet, vae_size=(8, 8)), "checkpoint")
    chains = [m for m in network.modules() if isinstance(m, InvertibleSequential)]
    assert len(chains) == 5 and {c.backprop for c in chains} == {"checkpoint"} and network.vae.backprop == "checkpoint"
