"""The guard tells when a chain does not find its way back, and says nothing when it does."""

from __future__ import annotations

import copy
import math
import pickle
import threading
import warnings

import pytest
import torch
from torch import nn

from monai_invertible import InvertibleSequential, read_drift, set_backprop, set_drift_guard
from monai_invertible.autograd import DriftGuard, StepDrift, drift, trace_drift
from monai_invertible.autograd.drift import EVERY, FIRST
from monai_invertible.autograd.drift_watch import LOOKS, SMALL, Watch, measurable, signed_sums
from monai_invertible.networks import FullyInvertibleUNet, InvertibleBatchNorm, InvertibleRIM, IRevNet
from monai_invertible.networks.layers import AdditiveCoupling, InvertibleLeakyReLU, LayerwiseBranch
from monai_invertible.networks.layers.layerwise import layerwise_unit
from tests.autograd.drift_trials import LIMIT, PLACES, planted_trial, right_trial
from tests.autograd.helper import coupling_chain, example


def layerwise(depth, slope, channels=8):
    """Its rounding is multiplied by up to 1 / slope in each unit."""
    torch.manual_seed(0)
    units = (layerwise_unit(2, channels, negative_slope=slope, invertible_eps=0.0) for _ in range(depth))
    return InvertibleSequential(*(layer for unit in units for layer in unit))


def step(network, x):
    y = network(x)
    (y[-1] if isinstance(y, tuple) else y).square().mean().backward()


def test_unstable_chain_is_caught_and_named():
    network = nn.ModuleDict({"body": layerwise(20, 0.01)})
    set_drift_guard(network)
    with pytest.raises(RuntimeError, match=r"chain 'body' of [0-9]+ steps .* above 0\.1; .*backprop=\"checkpoint\""):
        step(network["body"], torch.randn(2, 8, 16, 16))
    assert read_drift(network)["body"] > 0.1
    step(set_backprop(network, "checkpoint")["body"], torch.randn(2, 8, 16, 16))  # the remedy


def test_warns_once_between_the_limits():
    chain = set_drift_guard(layerwise(2, 0.2), warn_above=1e-9)
    with pytest.warns(UserWarning, match="a chain of [0-9]+ steps .* above 1e-09"):
        step(chain, torch.randn(2, 8, 16, 16))
    step(chain, torch.randn(2, 8, 16, 16))  # warnings are errors here
    set_drift_guard(chain, warn_above=None, raise_above=1e-9)
    with pytest.raises(RuntimeError, match="above 1e-09"):
        step(chain, torch.randn(2, 8, 16, 16))
    chain.guard.measured = None
    set_drift_guard(chain, warn_above=None, raise_above=None)
    step(chain, torch.randn(2, 8, 16, 16))
    assert read_drift(chain) == {}


def test_400_layers_of_irim_are_silent():
    torch.manual_seed(0)
    network = InvertibleRIM(2, 40)  # 64 channels, as the paper
    network(torch.randn(1, 1, 32, 32, 2)).square().mean().backward()
    assert 0 < read_drift(network)["chain"] < 1e-3


def test_measures_what_is_there():
    """The error that it reports is that of the inverse over the whole input."""
    chain, x = set_drift_guard(layerwise(6, 0.1), None, 9.0).double(), torch.randn(4, 8, 16, 16).double()
    chain.float()
    step(chain, x.float())
    state = x.float()
    with torch.no_grad():
        *_, back = (chain.inverse(*chain(state)),)
    true = float((back - state).norm() / state.norm())
    assert true / 3 < read_drift(chain)[""] < 3 * true


def test_nested_chains_are_guarded():
    torch.manual_seed(0)
    hybrid = IRevNet(channels=8)
    step(hybrid, torch.randn(2, 3, 16, 16))
    found = read_drift(hybrid)
    assert "chain" in found and any("f.chain" in name.lower() or ".chain" in name for name in found)
    assert all(0 <= error < 1e-3 for error in found.values())
    bad = InvertibleSequential(
        AdditiveCoupling(LayerwiseBranch(2, 4, 20, negative_slope=0.01, invertible_eps=0), nn.Identity())
    )
    set_drift_guard(bad)
    with pytest.raises(RuntimeError, match="chain '0.f.chain' of [0-9]+ steps"):
        step(bad, torch.randn(2, 8, 16, 16))


def test_forward_that_is_not_finite_is_not_the_guards_business():
    chain, x = coupling_chain(3), example(2, 4, 16).requires_grad_()
    with torch.no_grad():
        next(chain.parameters()).fill_(torch.inf)
    step(chain, x)
    assert read_drift(chain)[""] != read_drift(chain)[""]


def test_leaves_random_numbers_and_copies_alone():
    chain, x = coupling_chain(3), example(2, 4, 16).requires_grad_()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    step(chain, x)
    assert torch.equal(torch.get_rng_state(), before)
    other = copy.deepcopy(chain)
    set_drift_guard(other, 0.5, None)
    assert chain.guard.warn_above == 0.01


def test_stored_and_checkpointed_chains_measure_nothing():
    for mode in ("store", "checkpoint"):
        chain = set_backprop(coupling_chain(3), mode)
        step(chain, example(2, 4, 16).requires_grad_())
        assert read_drift(chain) == {}


def test_frozen_beginning_is_compared_where_backward_ends():
    chain = coupling_chain(4)
    for p in chain[0].parameters():
        p.requires_grad_(False)
    step(chain, example(2, 4, 16))
    assert 0 <= read_drift(chain)[""] < 1e-6


def test_first_layers_that_save_nothing():
    chain = InvertibleSequential(InvertibleLeakyReLU(0.5), *coupling_chain(2))
    step(chain, example(2, 4, 16))
    assert 0 < read_drift(chain)[""] < 1e-6


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_input_that_does_not_vary_is_not_judged(value):
    """As that of an empty patch: its norms turn rounding into numbers, stored or not. It must not stop a training."""
    torch.manual_seed(0)
    network = FullyInvertibleUNet(3, 4, 3, (16, 32, 64), (2, 2))
    step(network, torch.full((1, 4, 16, 16, 16), value))
    assert not read_drift(network)["core"] > 0.1  # not a number, or small


def test_an_offset_hides_nothing():
    torch.manual_seed(0)
    chain = InvertibleSequential(InvertibleBatchNorm(8), *layerwise(12, 0.2))
    with pytest.raises(RuntimeError, match=r"above 0\.1"):
        step(chain, torch.randn(4, 8, 16, 16) + 1000)


def test_statistics_in_the_state():
    """Of the inverse of a chain with norms, and behind norms that are frozen."""
    chain = layerwise(2, 0.5, channels=4)
    outputs = [t.detach() for t in chain(torch.randn(2, 4, 8, 8))]
    chain.inverse(*outputs).square().mean().backward()
    assert read_drift(chain)[""] < 1e-3
    hybrid = IRevNet(channels=8)
    hybrid.stem.requires_grad_(False)
    hybrid.chain[0].requires_grad_(False)
    step(hybrid, torch.randn(4, 3, 16, 16))
    assert read_drift(hybrid)["chain"] < 1e-3


def test_recomputed_values_that_are_not_finite_are_infinitely_wrong():
    class Broken(InvertibleLeakyReLU):
        def inverse(self, *state, **context):
            return state[0] * torch.nan

    chain = InvertibleSequential(*coupling_chain(1).float(), Broken(0.5))
    with pytest.raises(RuntimeError, match="error of inf"):
        step(chain, example(2, 4, 16).float())


def test_new_limits_warn_again():
    chain = set_drift_guard(layerwise(2, 0.2), warn_above=1e-9)
    for _ in range(2):
        with pytest.warns(UserWarning, match="above 1e-09"):
            step(chain, torch.randn(2, 8, 16, 16))
        set_drift_guard(chain, warn_above=1e-9)


def test_trace_sees_every_step():
    chain = layerwise(3, 0.2)
    set_drift_guard(chain, None, 1e-12)
    with trace_drift(chain) as trace:
        step(chain, torch.randn(2, 8, 16, 16, requires_grad=True))  # no limit holds
    assert [row.step for row in trace] == list(range(len(chain.steps()) - 1, 0, -1))  # nothing asks for the split
    assert all(isinstance(row, StepDrift) and row.signal > 0 for row in trace)
    assert trace[0].layer == "InvertibleLeakyReLU" and trace[-1].noise > 0
    with pytest.raises(RuntimeError):
        step(chain, torch.randn(2, 8, 16, 16, requires_grad=True))


def test_network_without_chain():
    with pytest.raises(ValueError, match="set_drift_guard: Linear has no invertible chain"):
        set_drift_guard(nn.Linear(2, 2))
    assert read_drift(nn.Linear(2, 2)) == {}


def test_limits_must_be_positive():
    with pytest.raises(ValueError, match="raise_above must be positive, got 0"):
        set_drift_guard(coupling_chain(1), raise_above=0)


def test_silent_under_autocast():
    chain = coupling_chain(20).float()
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16):
        warnings.simplefilter("error")
        step(chain, example(2, 4, 16).float().requires_grad_())
    assert read_drift(chain)[""] < 1e-3


def watched(*state, **options):
    """As the chain uses it, for a chain that does nothing."""
    watch = Watch(state, **options)
    watch.end(state)
    return watch


@pytest.mark.parametrize("seed", [7, 13, 27, 188, 198, 206, 215, 226])
def test_right_steps_on_provoking_inputs_are_silent(seed):
    """In most of these, samples of the input, or some of its channels, hold nothing but rounding."""
    trial = right_trial(seed)
    assert trial.right and trial.drift < LIMIT, trial


@pytest.mark.parametrize("place", PLACES)
def test_planted_errors_are_found(place):
    for seed in range(3):
        name, error, seen = planted_trial(seed, place)
        assert seen > LIMIT, (name, error)
        assert planted_trial(seed, place, size=0)[2] < LIMIT, name


@pytest.mark.parametrize("shape", [(2, 3, 50, 40), (1, 2, 300, 1000), (3, 4, 20, 8, 16), (2, 2, 9000)])
def test_a_wrong_voxel_is_seen_exactly(shape):
    x = example(*shape)
    assert x.numel() > SMALL  # numbers of its channels are kept
    wrong = x.clone()
    wrong[(0, 1, *[n // 2 for n in shape[2:]])] += 5
    scale = (x[:, 1].var(correction=0) + 0.03**2 * x.var([0, *range(2, x.ndim)], correction=0).max()).sqrt()
    expected = 5 / (x[:, 1].numel() ** 0.5 * scale)
    assert float(watched(x).error([wrong])) == pytest.approx(float(expected), rel=1e-4)


def test_error_over_the_whole_is_estimated():
    x = example(2, 8, 64, 64)
    noise = 0.02 * example(2, 8, 64, 64, seed=2)
    found = [float(watched(x).error([x + noise])) for _ in range(20)]
    assert 0.02 < sum(found) / 20 < 0.04 and min(found) > 0.01  # the largest of eight channels
    assert float(watched(x, whole=True).error([x + noise])) == pytest.approx(0.02, rel=0.1)


def test_layout_of_memory_does_not_matter():
    x = example(2, 4, 64, 48)
    for other in (x.to(memory_format=torch.channels_last), x.transpose(2, 3).contiguous().transpose(2, 3)):
        watch = watched(other)
        assert float(watch.error([x])) < 1e-13 and float(watch.error([x + 1])) > 0.1


def test_autocast_does_not_matter():
    x = example(2, 4, 64, 64).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        watch = watched(x)
    assert float(watch.error([x])) == 0


def test_sums_of_other_devices():
    piece, signs = example(3, 2, 50), example(3, 50, 4).sign()
    expected = signed_sums(piece, signs)

    class Elsewhere(torch.Tensor):
        device = torch.device("cuda")

    torch.testing.assert_close(signed_sums(piece.as_subclass(Elsewhere), signs).as_subclass(torch.Tensor), expected)


def test_keeps_few_numbers():
    for shape in ((2, 8, 64, 64), (1, 2, 300, 1000), (4, 512, 4, 4), (512, 64), (100000,)):
        kept = sum(t.numel() for t in Watch([torch.randn(shape)]).kept)
        assert kept <= max(math.prod(shape) / 16, LOOKS)


def test_tensors_without_positions_are_judged_by_the_scale_of_the_state():
    x, mean = example(2, 4, 64, 64), 1e-6 * example(4)
    # Of eight draws of the signs, since equal errors of four numbers may cancel in one.
    errors = [[float(watched(mean, x).error([mean + e, x])) for e in (1e-5, 0.1)] for _ in range(8)]
    assert max(small for small, _ in errors) < 1e-4 and max(large for _, large in errors) > 0.05
    assert float(watched(mean).error([1.1 * mean])) > 0.05  # alone, by its own
    assert 0 < float(watched(example(64, 256)).error([example(64, 256) * 1.1])) < 1


def test_measures_first_forwards_and_some_of_the_others():
    chain = coupling_chain(1)
    measured = []
    for _ in range(FIRST + 2 * EVERY):
        chain.guard.measured = None
        step(chain, example(2, 4, 16))
        measured.append(chain.guard.measured is not None)
    assert all(measured[:FIRST]) and sum(measured[FIRST:]) == 2


class Event:
    """Stands in for that of a GPU, which is not done until it says so."""

    def __init__(self):
        self.done = False

    def query(self):
        return self.done

    def synchronize(self):
        self.done = True


def late(monkeypatch):
    """Readings arrive late, as from a GPU; gives their events."""
    events = []

    class Late(drift.Reading):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.event = Event()
            events.append(self.event)

    monkeypatch.setattr(drift, "Reading", Late)
    return events


def test_nobody_waits_for_a_device(monkeypatch):
    events = late(monkeypatch)
    chain, x = layerwise(20, 0.01), torch.randn(2, 8, 16, 16)
    step(chain, x)  # lost its way, but who knows
    assert len(events) == 1 and chain.guard.measured is None and read_drift(chain, wait=False) == {}
    chain(x)
    events[0].done = True
    with pytest.raises(RuntimeError, match=r"a chain of .* above 0\.1"):
        chain(x)
    chain(x)  # told once
    step(chain, x)
    assert read_drift(chain)[""] > 0.1 and events[1].done  # waits
    with pytest.raises(RuntimeError, match=r"above 0\.1"):
        chain(x)
    step(chain, x)
    set_drift_guard(chain, None, None)  # forgets what was on its way
    step(chain, x)


def test_copies_and_pickles(monkeypatch):
    late(monkeypatch)
    chain = coupling_chain(2)
    step(chain, example(2, 4, 16))
    for guard in (copy.deepcopy(chain).guard, pickle.loads(pickle.dumps(chain.guard))):
        assert guard.readings == [] and guard.warn_above == 0.01 and guard.forwards == 1
    old = DriftGuard.__new__(DriftGuard)
    old.__setstate__({"warn_above": 0.5, "raise_above": None, "name": "core"})  # of an older version
    assert old.warn_above == 0.5 and old.readings == []


def test_threads_share_a_guard():
    guard, x = DriftGuard(raise_above=None), example(2, 4, 64, 64)

    def judge():
        for _ in range(20):
            watch = watched(x)
            guard.judge(watch, [1.05 * x], ["layer"], 0)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=judge) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(caught) == 1 and guard.readings == [] and 0.01 < guard.measured < 0.2


def test_tensors_without_values_are_left_alone():
    class Part(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
            raise AssertionError("looked at")

    part = torch.Tensor._make_wrapper_subclass(Part, (2, 4))
    assert measurable([torch.ones(2), part]) == measurable([torch.ones(2, device="meta")]) == []
    assert measurable([torch.ones(2, dtype=torch.long), torch.ones(0)]) == []
    assert len(measurable([torch.ones(2, dtype=torch.complex64)])) == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    """Is computed in single precision: a large number of small ones adds up."""
    x = (100 * example(2, 4, 128, 64)).to(dtype)
    watch = watched(x)
    assert float(watch.error([x])) == 0
    assert 0.05 < float(watch.error([1.1 * x])) < 0.2
    chain = coupling_chain(2).to(torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        step(set_drift_guard(chain, 0.01, None), example(2, 4, 2048).bfloat16())
    assert 0 < read_drift(chain)[""] < 0.1


def test_complex_states():
    x = torch.complex(example(2, 4, 64, 64), example(2, 4, 64, 64, seed=2))
    assert float(watched(x).error([x])) == 0 and 0.05 < float(watched(x).error([1.1 * x])) < 0.2
