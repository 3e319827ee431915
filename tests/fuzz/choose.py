"""Where random cases come from: a sequence of small numbers, drawn by hypothesis, by a seed, or read again.

A case is made by a function of one :class:`Choose`, which remembers each number that it gave. The numbers are all there
is to a case: read again, they make the same case a second time (the stored twin of a chain, say), and made smaller,
they make a smaller one, for 0 is always the simplest choice and what follows the last number is 0. Options have names,
so that some can be left out (``without``) and a failure can say what it consists of.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

__all__ = ["Choose", "Replayed", "Seeded", "choices", "smallest"]

T = TypeVar("T")


class Choose:
    """Gives numbers, and remembers them and the names that they stand for."""

    def __init__(self, next_number: Callable[[int], int], without: Collection[str] = ()) -> None:
        self._next = next_number
        self.without = frozenset(without)
        self.numbers: list[int] = []
        self.names: set[str] = set()

    def below(self, count: int) -> int:
        """A number from 0 to ``count - 1``."""
        number = self._next(count) if count > 1 else 0
        if count > 1:
            self.numbers.append(number)
        return number

    def integer(self, low: int, high: int) -> int:
        """A number from ``low`` to ``high``."""
        return low + self.below(high - low + 1)

    def of(self, options: Sequence[T]) -> T:
        """One of a list."""
        return options[self.below(len(options))]

    def name(self, weights: Mapping[str, int]) -> str:
        """One of several names, the first being the simplest, each as often as its weight says."""
        allowed = {name: weight for name, weight in weights.items() if weight > 0 and name not in self.without}
        number = self.below(sum(allowed.values()))
        for name, weight in allowed.items():
            if number < weight:
                self.names.add(name)
                return name
            number -= weight
        raise ValueError(f"Choose: nothing is left of {list(weights)} without {sorted(self.without)}. Leave one in.")

    def chance(self, percent: int, name: str = "") -> bool:
        """Whether something unusual happens, which may have a name."""
        if name in self.without:
            return False
        happens = self.below(100) >= 100 - percent
        if happens and name:
            self.names.add(name)
        return happens


class Seeded(Choose):
    """Draws from a seed: as fast as can be, and a whole case is one number."""

    def __init__(self, seed: int, without: Collection[str] = ()) -> None:
        super().__init__(random.Random(seed).randrange, without)


class Replayed(Choose):
    """Gives the numbers of an earlier case, then zeros."""

    def __init__(self, numbers: Sequence[int], without: Collection[str] = ()) -> None:
        left = iter(numbers)
        super().__init__(lambda count: next(left, 0) % count, without)


@st.composite
def choices(draw: Any, make: Callable[[Choose], Any], without: Collection[str] = ()) -> list[int]:
    """The numbers of a case that ``make`` makes, as a hypothesis strategy."""
    choose = Choose(lambda count: draw(st.integers(0, count - 1)), without)
    make(choose)
    return choose.numbers


def smallest(numbers: Sequence[int], fails: Callable[[Sequence[int]], bool], tries: int = 1000) -> list[int]:
    """Fewer and smaller numbers with which the case still fails."""
    best = list(numbers)

    def attempt(candidate: list[int]) -> bool:
        nonlocal best, tries
        tries -= 1
        if tries < 0 or candidate == best or not fails(candidate):
            return False
        best = candidate
        return True

    improved = True
    while improved and tries > 0:
        improved = False
        for size in (32, 16, 8, 4, 2, 1):
            at = 0
            while at < len(best):
                shorter = attempt(best[:at] + best[at + size :])
                if shorter or attempt(best[:at] + [0] * len(best[at : at + size]) + best[at + size :]):
                    improved = True
                if not shorter:
                    at += size
        for at in range(len(best)):
            while best[at : at + 1] > [0] and attempt([*best[:at], best[at] // 2, *best[at + 1 :]]):
                improved = True
    return best
