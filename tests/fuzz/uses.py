"""Random ways to use a chain: inputs of any layout, several forwards, what changes before backward, how backward goes.

:class:`Use` is the plan, drawn once, which :func:`tests.fuzz.running.run` carries out. A further axis is one more
field, drawn in :func:`random_use` and read there.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.fuzz.chains import Chain
from tests.fuzz.choose import Choose
from tests.fuzz.hooks import Hook, random_hook

__all__ = ["Use", "random_use"]

FORMATS = {"contiguous": 10, "channels last": 3, "transposed": 2, "gaps": 2, "expanded": 1, "offset": 1}
CALLS = {"forward": 10, "inverse of an output": 3, "inverse of an edited output": 1, "forward of its output": 2,
         "without gradients": 1, "checkpoint around": 1, "part after part": 2}  # fmt: skip
BETWEEN = {"nothing": 24, "evaluate": 3, "train": 2, "requires_grad": 2, "change number": 1, "change tensor": 1,
           "change tensor in place": 1, "change list": 1, "change dict": 1, "change string": 1, "step in place": 1,
           "another forward": 2, "change buffer": 1}  # fmt: skip
BACKWARD = {"backward": 12, "subset": 4, "twice": 3, "second order": 2, "one output after the other": 3,
            "independent backwards": 2, "batched": 1, "jacobian": 1, "of a part": 1}  # fmt: skip
UNBATCHED = ("batched", "jacobian")  # torch's checkpoint draws no random numbers within them

# What torch.utils.checkpoint does not repeat either.
UNREPEATED = {"python random", "numpy random", "own generator", "attributes", "counter", "score", "random score",
              "spectral norm", "spectral norm by hook", "batch norm", "batch norm without momentum",
              "large batch norm", "invertible batch norm", "tracking instance norm", "large tracking instance norm",
              "residual batch norm", "hybrid", "leaky relu in place", "silu in place"}  # fmt: skip


@dataclass
class Use:
    """How a chain is used."""

    training: bool
    mode: str  # "mixed" gives each chain its own, by `seed`
    kind: str  # of numbers
    formats: list[str]
    wanted: list[bool]  # which inputs require gradients
    wants_context: bool
    frozen: str
    calls: list[str]
    between: str
    backward: str
    retain: bool
    hooks: list[Hook]
    global_hook: bool
    seed: int


def random_use(choose: Choose, chain: Chain) -> Use:
    whole = chain.micro
    reentrant = "reentrant checkpoint" in choose.names  # knows no other backward than the plain one
    unrepeated = not choose.names.isdisjoint(UNREPEATED)
    possible = CALLS | {"checkpoint around": 0 if unrepeated or reentrant else 1}
    calls = ["forward"] if whole else [choose.name(possible) for _ in range(choose.of([1, 1, 2, 3]))]
    # A chain has independent outputs if it is made so, or used twice.
    ways = {k: w for k, w in BACKWARD.items() if "checkpoint around" not in calls or k not in UNBATCHED}
    ways |= {"independent backwards": 20 * ("independent outputs" in choose.names) + 2 * (len(calls) > 1)}
    return Use(
        training=not choose.chance(15, "evaluation"),
        mode=choose.name({"invert": 5, "checkpoint": 2, "mixed": 2}),
        kind=choose.name({"float64": 14, "float32": 2, "autocast bfloat16": 1, "autocast float16": 1}),
        formats=[choose.name(FORMATS) for _ in chain.shapes],
        wanted=[not choose.chance(25) for _ in chain.shapes],
        wants_context=not choose.chance(30),
        frozen=choose.name({"nothing frozen": 8, "some frozen": 3, "half frozen": 2, "all frozen": 1}),
        calls=calls,
        # torch.utils.checkpoint wants all to be as it was
        between=choose.name({"nothing": 1} if "checkpoint around" in calls else BETWEEN),
        backward=choose.name({"backward": 3, "twice": 1} if reentrant else ways),
        retain=choose.chance(40, "retain"),
        hooks=[]
        if whole or "checkpoint around" in calls
        else [random_hook(choose, chain.network) for _ in range(choose.of([0, 0, 0, 1, 2]))],
        # A part that is called again by somebody else calls it again.
        global_hook=choose.chance(3, "global hook")
        and "checkpoint around" not in calls
        and choose.names.isdisjoint(("checkpointed part", "reentrant checkpoint", "micro-batches")),
        seed=choose.below(1000),
    )
