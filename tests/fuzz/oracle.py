"""Judges a case: the chain must give what its stored twin gives, or refuse in words that help.

An error counts as a refusal only if it is in the short list below, in a case that has what it speaks of. A difference
counts as a fault if it is more than rounding: above a fixed part of the largest number of its kind, and also far above
what the stored chain itself does when its inputs and parameters are disturbed by rounding.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.fuzz.chains import Chain, random_chain
from tests.fuzz.choose import Choose, Replayed
from tests.fuzz.running import run
from tests.fuzz.uses import Use, random_use

__all__ = ["REFUSALS", "Verdict", "chain_case", "compare", "judge", "judge_chain"]

Results = dict[str, dict[str, Any]]
RANDOM = ["own generator", "python random", "numpy random"]
CHANGES = ["change number", "change tensor", "change tensor in place", "change list", "change dict", "change string",
           "change data", "change buffer", "step in place", "evaluate", "train"]  # fmt: skip

# Changes in place that only a stored chain minds, since the others work on a copy from before.
REMEMBERED = ["change buffer", "change tensor in place", "another forward"]

# An error of the engine, and what a case must have of for it to be right.
REFUSALS: list[tuple[str, list[str]]] = [
    (r"^\w+: a forward hook changed the input or output of layer .* Hook a branch", ["changer", "early changer"]),
    (r"^\w+: .*was changed in place between forward and backward.*", CHANGES),
    (r"^\w+: one of the variables needed for gradient computation has been modified by an inplace operation", CHANGES),
    (r"^\w+: .*does not repeat itself.*Remove what changes", [*RANDOM, *CHANGES, "attributes", "counter"]),
    (r"^\w+: .*recomputed its input with a relative error.*Use ", [*RANDOM, *CHANGES, "float32", "autocast bfloat16",
                                                                    "autocast float16", "inverse of an edited output"]),
    (r"^\w+: .*does not undo its forward, which draws.*Write its random branches", ["crossed layer"]),
    (r"^\w+: .*attribute .* was (changed|replaced).*Replace it after backward", CHANGES),
    (r"^\w+: .*[Tt]he training-mode inverse.*", ["inverse of an edited output", "inverse of an output"]),
    (r"^\w+: .*is_grads_batched.*", ["batched", "jacobian"]),
    (r"^\w+: .*state of (one|a single) tensor.*", ["orthogonal layer in a stack"]),
    (r"^\w+: the chain's output was changed in place between forward and backward.*Use an out-of-place",
     ["leaky relu in place", "silu in place"]),
    (r"^\w+: trying to backward through the chain a second time.*Use retain_graph=True", ["independent backwards"]),
]  # fmt: skip
# Warnings of the package that say nothing about results.
QUIET = r"keeps tensors as attributes of its ctx"


@dataclass
class Verdict:
    """What became of a case."""

    kind: str  # "same", "refused", "both failed", "not stored alone", "not finite", "FAULT"
    text: str = ""
    numbers: list[int] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    story: str = ""


def chain_case(choose: Choose) -> tuple[Chain, Use]:
    """A random chain and a use of it."""
    chain = random_chain(choose)
    return chain, random_use(choose, chain)


def judge_chain(numbers: Sequence[int], without: Collection[str] = ()) -> Verdict:
    """Build the chain that the numbers make, once stored and once not, and compare."""
    choose = Replayed(numbers, without)
    chain, use = chain_case(choose)

    def attempt(store: bool, noise: float = 0.0, noise_seed: int = 0) -> Results:
        return run(chain_case(Replayed(numbers, without))[0], use, store, noise, noise_seed)

    small = {"float64": 1e-7, "float32": 1e-3}.get(use.kind, 2e-2)
    rounding = 1e-15 if use.kind == "float64" else 3e-7
    verdict = judge(attempt, choose.names, small, rounding)
    verdict.numbers, verdict.names = choose.numbers, choose.names
    if verdict.kind == "FAULT":
        verdict.story = f"{chain.network}\n{chain.shapes}, context: {chain.context}\n{use}"
    return verdict


def judge(
    attempt: Callable[..., Results], names: Collection[str], small: float, rounding: float, kinds: str = ""
) -> Verdict:
    """Compare ``attempt(store=False)`` with ``attempt(store=True)``."""
    expected, failure, told = tried(lambda: attempt(True))
    got, error, warned = tried(lambda: attempt(False))
    if failure is not None:
        if error is not None:
            if isinstance(error, (TypeError, AttributeError, LookupError, AssertionError)):
                return Verdict("FAULT", f"a raw error, stored too: {first_line(error)}")
            return Verdict("both failed", str(failure))
        if "inplace operation" in str(failure) and not set(REMEMBERED).isdisjoint(names):
            return Verdict("not stored alone")
        return Verdict("FAULT", f"stored fails ({first_line(failure)}), not stored does not")
    if error is not None:
        if isinstance(error, (RuntimeError, ValueError, TypeError)) and refusal(str(error), names):
            return Verdict("refused", str(error))
        return Verdict("FAULT", f"{type(error).__name__}: {error}")
    assert expected is not None and got is not None
    if not finite(expected):
        return Verdict("not finite")
    extra = [w for w in warned if w not in told and not re.search(QUIET, w)]
    if any(not refusal(w, names) for w in extra):
        return Verdict("FAULT", f"warned: {extra[0]}")
    differences = compare(got, expected)
    large = {k: e for k, e in differences.items() if e > small}
    if not large:
        return Verdict("same")
    if max(large.values()) < float("inf"):
        # What the stored chain does when rounding disturbs it, three times.
        shaken = [tried(lambda seed=seed: attempt(True, rounding, seed))[0] for seed in range(3)]
        for other in shaken:
            for k, e in compare(other, expected).items() if other is not None else ():
                if k in large and large[k] <= 300 * e:
                    del large[k]
        if not large:
            return Verdict("same")
    if extra:  # it said so
        return Verdict("refused", extra[0])
    worst = max(large, key=lambda k: large[k])
    return Verdict("FAULT", f"{worst}: relative error {large[worst]:.1e} ({', '.join(sorted(large)[:6])})")


def tried(function: Callable[[], Results]) -> tuple[Results | None, Exception | None, list[str]]:
    """What it returns, its error, and the warnings of this package."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result, error = function(), None
        except Exception as caught_error:
            result, error = None, caught_error
    texts = [str(w.message) for w in caught]
    return result, error, [t for t in texts if re.match(r"[A-Z]\w+: ", t)]


def refusal(text: str, names: Collection[str]) -> bool:
    """Whether the error is one that the engine may raise for a case of these names."""
    return any(re.search(p, text, re.DOTALL) and not set(when).isdisjoint(names) for p, when in REFUSALS)


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''}"


def finite(results: Results) -> bool:
    """Whether all that was computed is."""
    tensors = [t for kind in results.values() for t in kind.values() if isinstance(t, Tensor) and t.is_floating_point()]
    return all(bool(t.isfinite().all()) for t in tensors)


def compare(got: Results, expected: Results) -> dict[str, float]:
    """Name to the difference, as a part of the largest number of its kind; infinite where something is not the same."""
    differences: dict[str, float] = {}
    for kind, values in expected.items():
        if kind == "exact":
            differences.update({k: float("inf") for k, v in values.items() if got[kind][k] != v})
            continue
        if got[kind].keys() != values.keys():
            differences[f"{kind}: other names"] = float("inf")
            continue
        largest = max([float(t.abs().max()) for t in values.values() if t is not None and t.numel()] + [1e-300])
        for name, b in values.items():
            a = got[kind][name]
            if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
                if a is not b:
                    differences[f"{kind} {name}"] = float("inf")
                continue
            error = float((a.double() - b.double()).abs().max()) / largest if b.numel() else 0.0
            differences[f"{kind} {name}"] = error if torch.tensor(error).isfinite() else float("inf")
    return differences
