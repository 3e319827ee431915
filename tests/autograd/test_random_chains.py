"""Random chains, used in random ways, against plain autograd: hypothesis looks for one that differs.

The cases come from ``tests/fuzz``; ``make fuzz`` judges many more of them, from seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings

from monai_invertible.autograd import InvertibleSequential
from tests.fuzz.choose import Replayed, Seeded, choices, smallest
from tests.fuzz.layers import Moved
from tests.fuzz.oracle import chain_case, judge, judge_chain, refusal
from tests.fuzz.running import run

PROFILE = settings(
    max_examples=80,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # `smallest` knows what the numbers mean, and takes seconds
    suppress_health_check=list(HealthCheck),
)
MODES = {"invert": ["checkpoint", "mixed"], "checkpoint": ["invert", "mixed"], "mixed": ["invert", "checkpoint"]}


def check(numbers: Sequence[int], without: Sequence[str]) -> None:
    if judge_chain(numbers, without).kind == "FAULT":
        small = smallest(numbers, lambda fewer: judge_chain(fewer, without).kind == "FAULT", tries=60)
        verdict = judge_chain(small, without)
        pytest.fail(f"{verdict.text}\n{verdict.story}\n{sorted(verdict.names)}\nnumbers={small}")


@PROFILE
@given(choices(chain_case, MODES["invert"]))
def test_an_inverted_chain_gives_what_a_stored_one_gives(numbers: list[int]) -> None:
    check(numbers, MODES["invert"])


@PROFILE
@given(choices(chain_case, MODES["checkpoint"]))
def test_a_checkpointed_chain_gives_what_a_stored_one_gives(numbers: list[int]) -> None:
    check(numbers, MODES["checkpoint"])


@PROFILE
@given(choices(chain_case, MODES["mixed"]))
def test_a_chain_of_several_modes_gives_what_a_stored_one_gives(numbers: list[int]) -> None:
    check(numbers, MODES["mixed"])


@pytest.mark.parametrize("seed", range(3))
def test_the_numbers_of_a_case_make_it_again(seed: int) -> None:
    first = Seeded(seed)
    chain, use = chain_case(first)
    again = Replayed(first.numbers)
    other, same = chain_case(again)
    assert str(chain.network) == str(other.network) and use == same and first.numbers == again.numbers
    assert all(torch.equal(a, b) for a, b in zip(chain.network.parameters(), other.network.parameters(), strict=True))


def test_a_wrong_inverse_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = ["checkpoint", "mixed"]

    def wrong(self: Moved, *state: Any, **context: Any) -> Any:
        *rest, y = state
        x = torch.cat([y[:, : self.first], y[:, self.first :] - (1 + 1e-5) * self.net(y[:, : self.first])], 1)
        return (*rest, x) if rest else x

    monkeypatch.setattr(Moved, "inverse", wrong)

    def fails(numbers: Sequence[int]) -> bool:
        verdict = judge_chain(numbers, plain)
        return verdict.kind == "FAULT" and "relative error" in verdict.text and "moved layer" in verdict.names

    having = (n for seed in range(1000) if "moved layer" in names_of(n := numbers_of(seed, plain), plain))
    found = next(numbers for numbers in having if fails(numbers))
    small = smallest(found, fails, tries=20)
    assert len(small) < len(found) and fails(small)


def names_of(numbers: Sequence[int], without: Sequence[str]) -> set[str]:
    choose = Replayed(numbers, without)
    chain_case(choose)
    return choose.names


def numbers_of(seed: int, without: Sequence[str]) -> list[int]:
    choose = Seeded(seed, without)
    chain_case(choose)
    return choose.numbers


def test_a_raw_error_is_no_refusal() -> None:
    def attempt(store: bool, *noise: Any) -> Any:
        if not store:
            raise RuntimeError("InvertibleSequential: the size of tensor a must match")
        return {"outputs": {"y": torch.ones(2)}, "exact": {}}

    assert judge(attempt, {"forward"}, 1e-7, 1e-15).kind == "FAULT"
    message = 'InvertibleSequential: layer 3 does not repeat itself. Remove what changes, or use backprop="store".'
    assert refusal(message, {"numpy random"}) and not refusal(message, {"dropout"})


def test_the_oracle_sees_a_difference_of_each_kind() -> None:
    without = ["checkpoint", "mixed"]
    numbers = numbers_of(5, without)
    chain, use = chain_case(Replayed(numbers, without))
    assert isinstance(chain.network, InvertibleSequential)
    results = run(chain, use, True)
    for kind, values in results.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and not value.is_floating_point():
                continue

            def attempt(store: bool, *noise: Any, kind: str = kind, name: str = name, value: Any = value) -> Any:
                changed: Any = None if kind == "exact" or value is None else value + 1e-3 * value.abs().max() + 1e-3
                if kind != "exact" and value is None:
                    changed = torch.zeros(1)
                return results if store else results | {kind: results[kind] | {name: changed}}

            assert judge(attempt, set(), 1e-7, 1e-15).kind == "FAULT", f"{kind} {name}"
