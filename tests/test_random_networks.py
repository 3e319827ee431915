"""Every public network with random arguments, in random modes, trained for a step or two, against the same one stored.

The cases come from ``tests/fuzz``; ``make fuzz`` judges many more of them, from seeds.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from torch import nn

import monai_invertible.networks.nets
from tests.fuzz.choose import Choose, choices
from tests.fuzz.networks import FEW, NETWORKS, judge_network, network_case
from tests.test_properties import public_classes

PROFILE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def test_every_public_network_is_made() -> None:
    assert public_classes(monai_invertible.networks.nets, base=nn.Module) == set(NETWORKS)


@pytest.mark.parametrize("kind", [kind.__name__ for kind in NETWORKS])
def test_a_random_network_trains_as_stored(kind: str) -> None:
    others = [other.__name__ for other in NETWORKS if other.__name__ != kind]

    def make(choose: Choose) -> object:
        return network_case(choose)

    @settings(PROFILE, max_examples=2 if kind in {few.__name__ for few in FEW} else 4)
    @given(choices(make, others))
    def judged(numbers: list[int]) -> None:
        verdict = judge_network(numbers, others)
        assert verdict.kind in ("same", "refused"), f"{verdict.kind}: {verdict.text}\n{verdict.story}"

    judged()
