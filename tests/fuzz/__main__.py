"""A long run: random chains and random networks against their stored twins, each from a seed of its own.

    python -m tests.fuzz --chains 10000 --networks 1000 --seed 0
    python -m tests.fuzz --chain 123                        one case again, in detail
    python -m tests.fuzz --chain 123 --shrink               and the smallest that fails in the same way
    python -m tests.fuzz --without "python random,batched"  leave things out

Goes on after a failure, prints each as a command that runs it again, and exits with 1 if there was any.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm

from tests.fuzz.choose import Choose, Seeded, smallest
from tests.fuzz.networks import judge_network, network_case
from tests.fuzz.oracle import Verdict, chain_case, judge_chain

KINDS: dict[str, tuple[Callable[[Choose], object], Callable[..., Verdict]]] = {
    "chain": (chain_case, judge_chain),
    "network": (network_case, judge_network),
}


def verdict_of(kind: str, seed: int, without: Sequence[str]) -> Verdict:
    """Make the case of a seed and judge it."""
    make, judge = KINDS[kind]
    choose = Seeded(seed, without)
    make(choose)
    return judge(choose.numbers, without)


def one_case(kind: str, seed: int, without: Sequence[str], shrink: bool) -> bool:
    """Show one case, or the smallest like it; whether it fails."""
    verdict = verdict_of(kind, seed, without)
    judge = KINDS[kind][1]
    if shrink and verdict.kind == "FAULT":
        wanted = sort_of(verdict)

        def fails(numbers: Sequence[int]) -> bool:
            found = judge(numbers, without)
            return found.kind == "FAULT" and sort_of(found) == wanted

        verdict = judge(smallest(verdict.numbers, fails), without)
    print(
        f"{verdict.kind}: {verdict.text}\n{verdict.story}\nNames: {sorted(verdict.names)}\nNumbers: {verdict.numbers}"
    )
    return verdict.kind == "FAULT"


def sort_of(verdict: Verdict) -> str:
    """What failed, without the numbers in it."""
    return re.sub(r"[\d.e+-]+", "#", verdict.text.split("(")[0]).split(" ")[0]


def many_cases(kind: str, count: int, first: int, without: Sequence[str]) -> list[int]:
    """Judge ``count`` seeds; those that fail."""
    failed: list[int] = []
    kinds: Counter[str] = Counter()
    with tqdm(total=count, desc=f"{kind}s", unit="", mininterval=1.0, disable=not count) as bar:
        for seed in range(first, first + count):
            verdict = verdict_of(kind, seed, without)
            kinds[verdict.kind] += 1
            if verdict.kind == "FAULT":
                failed.append(seed)
                options = f' --without "{",".join(without)}"' if without else ""
                bar.write(f"python -m tests.fuzz --{kind} {seed}{options}\n    {verdict.text.splitlines()[0][:200]}")
            bar.set_postfix(failed=len(failed), refresh=False)
            bar.update()
    if count:
        print(f"{count} {kind}s: {', '.join(f'{n} {kind}' for kind, n in kinds.most_common())}")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])  # type: ignore
    parser.add_argument("--chains", type=int, default=0, help="how many random chains")
    parser.add_argument("--networks", type=int, default=0, help="how many random networks")
    parser.add_argument("--seed", type=int, default=0, help="of the first; each next one has the next")
    parser.add_argument("--without", default="", help="names to leave out, separated by commas")
    parser.add_argument("--chain", type=int, help="one chain again, by its seed")
    parser.add_argument("--network", type=int, help="one network again, by its seed")
    parser.add_argument("--shrink", action="store_true", help="show the smallest case that fails alike")
    options = parser.parse_args()
    torch.set_num_threads(1)
    without = [name.strip() for name in options.without.split(",") if name.strip()]
    for kind, seed in (("chain", options.chain), ("network", options.network)):
        if seed is not None:
            return int(one_case(kind, seed, without, options.shrink))
    start = time.perf_counter()
    failed = [
        many_cases(k, n, options.seed, without) for k, n in (("chain", options.chains), ("network", options.networks))
    ]
    print(f"{sum(map(len, failed))} failed, {time.perf_counter() - start:.0f} s")
    return int(any(failed))


if __name__ == "__main__":
    sys.exit(main())
