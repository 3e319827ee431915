"""Signal to noise of recomputed activations, on chains whose errors are known, and on the networks of the paper."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_invertible import InvertibleModule, InvertibleSequential, set_backprop
from monai_invertible.networks import InvertibleLeakyReLU, IRevNet
from monai_invertible.numerics import PRECISIONS, LayerSNR, ReconstructionReport, leaky_relu_alpha, reconstruction_snr


class Scale(InvertibleModule):
    """x -> weight x, whose inverse adds an error of ``slip`` times a pattern of mean square 1."""

    def __init__(self, slip: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
        self.slip = slip

    def forward(self, x: Tensor, **context: Any) -> Tensor:
        return x * self.weight

    def inverse(self, y: Tensor, **context: Any) -> Tensor:
        pattern = torch.tensor([1.0, -1.0], dtype=y.dtype).repeat(y.numel() // 2)
        return y / self.weight + self.slip * pattern.view_as(y)


def chain(*layers: InvertibleModule) -> InvertibleSequential:
    return InvertibleSequential(Scale(), *layers)


def square(network: nn.Module) -> Tensor:
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return network(x / x.square().mean().sqrt()).square().mean()


def report(*decibels: float) -> ReconstructionReport:
    return ReconstructionReport("Net", [LayerSNR("c", i, "L", 10 ** (d / 10)) for i, d in enumerate(decibels)])


def images(network: nn.Module) -> Tensor:
    return network(torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))).square().mean()


def small(**options: Any) -> IRevNet:
    torch.manual_seed(0)
    return IRevNet(channels=8, **options)


LAYERWISE = {"branch": None, "blocks": (3, 4, 4, 2)}


def test_errors_of_known_size() -> None:
    """The last step's error comes to the first, where it meets another; unaware of signs, the two add up."""
    found = reconstruction_snr(chain(Scale(1e-3), Scale(1e-4)), square)
    assert [(row.chain, row.step, row.layer) for row in found.rows] == [("", i, "Scale") for i in range(3)]
    assert [row.error for row in found.rows] == pytest.approx([1.1e-3, 1.1e-3, 1e-4], rel=1e-6)
    assert [row.lost for row in found.rows[:2]] == pytest.approx([0, 20 * math.log10(11)], abs=1e-6)
    assert math.isnan(found.rows[2].lost)
    assert found.worst.decibels == pytest.approx(-20 * math.log10(1.1e-3))


def test_loss_of_a_leaky_relu_is_its_alpha() -> None:
    found = reconstruction_snr(chain(InvertibleLeakyReLU(0.2), Scale(1e-6)), square)
    assert 10 ** (-found.rows[1].lost / 10) == pytest.approx(leaky_relu_alpha(0.2), rel=0.02)
    assert next(iter(found.lost)) == "InvertibleLeakyReLU"


def test_no_error_at_all() -> None:
    found = reconstruction_snr(chain(Scale()), square)
    assert found.verdict == "safe"
    assert found.worst.decibels == math.inf
    assert found.worst.error == 0


def test_what_is_not_finite_is_lost() -> None:
    found = reconstruction_snr(chain(Scale(math.inf)), square)
    assert found.verdict == "unsafe"
    assert (found.worst.decibels, found.worst.error) == (-math.inf, math.inf)
    found.draw()


@pytest.mark.parametrize(
    ("decibels", "verdict"), [(40.001, "safe"), (39.9, "doubtful"), (20.001, "doubtful"), (19.9, "unsafe")]
)
def test_verdict(decibels: float, verdict: str) -> None:
    found = report(80, decibels, 60)
    text = str(found)
    assert found.verdict == verdict
    assert text.startswith(f"Net: inversion is {verdict}\n")
    assert f"lowest signal to noise: {decibels:.1f} dB at the input of step 1 (L) of chain 'c'\n" in text
    assert ('backprop="checkpoint"' in text) == (verdict != "safe")


def test_network_stays_as_it_is() -> None:
    network = set_backprop(small(), "store")
    before = copy.deepcopy(network.state_dict())
    rows = reconstruction_snr(network, images).rows
    assert {chain.backprop for chain in network.modules() if isinstance(chain, InvertibleSequential)} == {"store"}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert rows == reconstruction_snr(set_backprop(network, "invert"), images).rows


def test_hybrid_is_safe_where_the_layerwise_network_is_not() -> None:
    hybrid, layerwise = (reconstruction_snr(small(**options), images) for options in ({}, LAYERWISE))
    assert (hybrid.verdict, layerwise.verdict) == ("safe", "unsafe")
    assert {row.chain for row in layerwise.rows} == {"chain"}
    assert {"chain", "chain.4.f.chain", "chain.10.g.chain"} <= {row.chain for row in hybrid.rows}
    for found in (hybrid, layerwise):
        outer = [row.step for row in found.rows if row.chain == "chain"]
        assert outer == list(range(len(outer)))
    assert next(iter(layerwise.lost)) == "InvertibleLeakyReLU"


def test_precisions_in_order() -> None:
    """Where products are rounded more coarsely than the state, it is chance which roundings an error turns over."""
    least = {name: reconstruction_snr(small(), images, precision=name).worst.decibels for name in PRECISIONS}
    assert least["float64"] > least["float32"] + 120
    assert least["float32"] > max(least["tf32"], least["bfloat16 autocast"])
    assert min(least["tf32"], least["bfloat16 autocast"]) > least["bfloat16"]
    assert least["float32"] == reconstruction_snr(small(), images).worst.decibels


@pytest.mark.parametrize("options", [{}, LAYERWISE])
def test_picture(options: dict[str, Any], tmp_path: Path) -> None:
    found = reconstruction_snr(small(**options), images)
    figure = found.draw(tmp_path / "snr.png")
    (axes,) = figure.axes
    assert len(axes.lines) == len({row.chain for row in found.rows}) + 1
    assert f"inversion is {found.verdict}" in axes.get_title(loc="left")
    assert (axes.get_legend() is None) == ("branch" in options)
    assert (tmp_path / "snr.png").stat().st_size > 10_000


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="Conv2d has no invertible chain"):
        reconstruction_snr(nn.Conv2d(1, 1, 1), square)
    network = small()
    with pytest.raises(ValueError, match="no chain of IRevNet walked back. run must call the network that it is given"):
        reconstruction_snr(network, lambda copied: copied.head.linear.weight.sum())
