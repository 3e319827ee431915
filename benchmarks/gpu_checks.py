"""The checks of ``gpu_check.py``, by name: the tests of ``tests/gpu``, and the engine's benchmark in each precision.

A check is a function of a :class:`Setting` that returns a :class:`Result`, and a row of ``CHECKS``; another one is
another row. It looks at ``setting.left()`` and stops by itself when its time is over.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import CHANNELS, quartiles, table
from engine_vs_peers import CONTENDERS, build, gradients
from torch import Tensor, nn

from monai_invertible.memory import LiveBytes

__all__ = ["CHECKS", "Check", "Result", "Setting"]

ROOT = Path(__file__).resolve().parents[1]
SILENCE = 120.0  # seconds after which a test that says nothing is taken for one that hangs
QUICK_TESTS = ["tests/gpu/test_capture.py", "tests/gpu/test_engine.py", "-k", "captured or retained or double_backward"]

LOSS_SCALE = 2.0**16  # that of GradScaler at its beginning; the same in every precision
LEAST_TURNS, TURNS, WARM_UPS = 3, 15, 3
SIDES = (128, 112, 96, 80, 64, 48, 32)


class Setting(NamedTuple):
    """Where and how long a check runs."""

    device: torch.device
    quick: bool
    deadline: float  # of time.monotonic()

    def left(self) -> float:
        """Seconds."""
        return self.deadline - time.monotonic()


class Result(NamedTuple):
    """What came of a check: ``status`` is passed, failed, or not run (also: only a part was)."""

    status: str
    text: str  # Markdown
    data: dict[str, Any]  # for the JSON
    reason: str = ""  # of a status other than passed, in a few words


class Check(NamedTuple):
    """A check, and the part of the remaining time that it may take, relative to those behind it."""

    name: str
    share: float
    run: Callable[[Setting], Result]


# ---------------------------------------------------------------------------------------------------------------- tests


def run_tests(setting: Setting) -> Result:
    """``tests/gpu`` in processes of their own, since a fault of a kernel leaves a process without its GPU."""
    with tempfile.TemporaryDirectory() as folder:
        journal, log = Path(folder, "journal"), Path(folder, "log")
        while (ended := run_pytest(setting, journal, log)) == "broke off":
            pass
        tests = read_journal(journal)
        output = log.read_text(errors="replace")[-2000:]
    counts = Counter(t["outcome"] for t in tests.values())
    files: dict[str, Counter[str]] = {}
    for name, t in tests.items():
        files.setdefault(Path(name.split("::")[0]).stem.removeprefix("test_"), Counter())[t["outcome"]] += 1
    outcomes = ["passed", "failed", "broke off", "skipped", "not run"]
    parts = [table(["tests of", *outcomes], [[name, *[c[o] for o in outcomes]] for name, c in files.items()])]
    for outcome in ("failed", "broke off"):
        names = [
            f"- `{name.split('/')[-1]}`: {summary(t['text'])}" for name, t in tests.items() if t["outcome"] == outcome
        ]
        parts += [f"{outcome.capitalize()}:", "\n".join(names)] if names else []
    reasons = Counter(t["text"].removeprefix("Skipped: ") for t in tests.values() if t["outcome"] == "skipped")
    parts += ["Skipped:", "\n".join(f"- {n}: {reason}" for reason, n in reasons.items())] if reasons else []
    status = "failed" if counts["failed"] + counts["broke off"] or ended == "failed" else "passed"
    status = "not run" if status == "passed" and (counts["not run"] or not tests) else status
    reason = ", ".join(f"{counts[o]} {o}" for o in outcomes[1:] if counts[o] and o != "skipped")
    if ended == "failed":
        reason = f"pytest failed: {output}"
    return Result(status, "\n\n".join(parts), {"counts": dict(counts), "tests": tests}, reason)


def run_pytest(setting: Setting, journal: Path, log: Path) -> str:
    """Until all tests are through ("done"), time is over ("stopped"), a test broke its process ("broke off"), or
    pytest itself fails ("failed")."""
    chosen = QUICK_TESTS if setting.quick else ["tests/gpu"]
    # A warning that a driver or a new torch gives is for the log; what a test says of warnings holds.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", *chosen]
    variables = {"GPU_TEST_DEVICE": setting.device.type, "GPU_TEST_JOURNAL": str(journal)}
    begun = sum(t["outcome"] != "not run" for t in read_journal(journal).values())
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **variables}, stdout=file, stderr=file, start_new_session=True
        )
        first = size = journal.stat().st_size if journal.exists() else 0
        heard = time.monotonic()
        while process.poll() is None:
            time.sleep(0.1)
            now = journal.stat().st_size if journal.exists() else 0
            size, heard = (now, time.monotonic()) if now != size else (size, heard)
            silent = time.monotonic() - heard > (SILENCE if size > first else 5 * SILENCE)  # imports take their time
            if silent or setting.left() <= 0:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if setting.left() <= 0:
                    return "stopped"
                break
    if process.returncode in (0, 1, 5):  # all passed, some failed, none left
        return "done"
    return "broke off" if sum(t["outcome"] != "not run" for t in read_journal(journal).values()) > begun else "failed"


def read_journal(journal: Path) -> dict[str, dict[str, Any]]:
    """Name of each test to its outcome, seconds and text."""
    tests: dict[str, dict[str, Any]] = {}
    for line in journal.read_text().splitlines() if journal.exists() else []:
        event = json.loads(line)
        name, kind = event["test"], event["event"]
        if kind == "collected":
            tests.setdefault(name, {"outcome": "not run", "seconds": 0.0, "text": ""})
        elif kind == "started":
            tests[name] = {"outcome": "broke off", "seconds": 0.0, "text": "the process ended, or was ended, within it"}
        elif tests[name]["outcome"] != "failed":
            tests[name] = {"outcome": kind, "seconds": round(event["seconds"], 3), "text": event["text"]}
    return tests


def summary(text: str) -> str:
    """The error of a failed test in a line."""
    errors = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return (errors or text.splitlines() or ["no text"])[0][:200].replace("|", "/")


# --------------------------------------------------------------------------------------------------------------- engine


def measure_engine(setting: Setting, precision: torch.dtype, last: bool) -> Result:
    """The chain of ``engine_vs_peers.py`` at a size for a GPU, in one precision and layout."""
    depths, side = ((1, 3), 8) if setting.quick else ((4, 20), largest_side(setting.device, 20))
    layout = torch.channels_last_3d if last else torch.contiguous_format
    x = torch.rand(1, CHANNELS, side, side, side, generator=torch.Generator().manual_seed(0))
    x = x.to(setting.device).to(memory_format=layout)
    train = partial(training_step, precision=precision)
    found: dict[str, dict[str, Any]] = {name: {} for name in CONTENDERS}
    networks: dict[str, nn.Module] = {}
    exact: list[Tensor] = []
    for name in CONTENDERS:
        try:
            for depth in depths:
                network = build(name, depth).to(setting.device).to(memory_format=layout)
                grads = gradients(network, x, train)  # and a first warm-up: gradients exist, libraries are loaded
                kept, peak = memory(network, x, train)
                found[name][f"depth {depth}"] = {"kept": kept, "peak": peak}
            exact = exact or grads
            difference = sum(float((g - e).square().sum()) for g, e in zip(grads, exact, strict=True))
            found[name]["gradient error"] = (difference / sum(float(e.square().sum()) for e in exact)) ** 0.5
            networks[name] = network
        except RuntimeError as error:  # out of memory, or a peer that does not know this precision
            found[name]["error"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    seconds = take_turns_on(setting, networks, x, train)
    turns = len(seconds.get("stored", []))
    data = {
        "shape": list(x.shape),
        "couplings": depths[-1],
        "turns": turns,
        "loss_scale": LOSS_SCALE,
        "unit_bytes": x.nbytes,
        "clock": "CUDA events" if setting.device.type == "cuda" else "time.perf_counter",
        "memory": "torch.cuda.max_memory_allocated" if setting.device.type == "cuda" else "LiveBytes",
        "tf32": {"convolutions": torch.backends.cudnn.allow_tf32, "products": torch.backends.cuda.matmul.allow_tf32},
        "contenders": found,
    }
    for name, own in seconds.items():
        if turns >= LEAST_TURNS:
            ratios = quartiles([a / b for a, b in zip(own, seconds["stored"], strict=True)])
            found[name] |= {"seconds": own, "median": statistics.median(own), "ratio_quartiles": ratios}
    text = f"{depths[-1]} couplings, {CHANNELS} channels, {side} x {side} x {side}; {turns} turns.\n\n"
    text += table(
        ["", "ms a step", "time, stored = 1 (quartiles)", "gradient error", *[f"peak, {n} couplings" for n in depths],
         f"kept, {depths[-1]} couplings"],
        [[name, *cells(own, depths, x.nbytes)] for name, own in found.items()],
    )  # fmt: skip
    errors = [f"{name}: {own['error']}" for name, own in found.items() if "error" in own]
    text += "".join(f"\n\n{error}" for error in errors)
    if any(name != "memcnn" and "error" in own for name, own in found.items()):  # a peer's failure is the peer's
        return Result("failed", text, data, "; ".join(errors))
    if turns < LEAST_TURNS:
        return Result("not run", text, data, f"time was over after {turns} turns of at least {LEAST_TURNS}")
    return Result("passed", text, data)


def training_step(
    network: nn.Module, x: Tensor, *, precision: torch.dtype, after_forward: Callable[[], None] = lambda: None
) -> None:
    """Forward, mean square, backward."""
    with torch.autocast(x.device.type, precision, enabled=precision != torch.float32):
        loss = network(x).square().mean() * LOSS_SCALE
    after_forward()
    loss.backward()


def memory(network: nn.Module, x: Tensor, train: Callable[..., None]) -> tuple[int, int]:
    """Bytes kept after forward, and at the peak of a step; its input is in both, what was there before is not."""
    gc.collect()
    if x.device.type == "cpu":
        with LiveBytes() as live:
            train(network, x.clone(), after_forward=lambda: live.mark("forward"))
        return live.phases["forward"].current, live.peak
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, kept = torch.cuda.memory_allocated(), [0]
    train(network, x.clone(), after_forward=lambda: kept.append(torch.cuda.memory_allocated() - before))
    torch.cuda.synchronize()
    return kept[-1], torch.cuda.max_memory_allocated() - before


def take_turns_on(
    setting: Setting, networks: dict[str, nn.Module], x: Tensor, train: Callable[..., None]
) -> dict[str, list[float]]:
    """Seconds of each network's steps, in turns whose order goes round; whole turns only, as many as there is time
    for."""
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    names, warm_ups, turns = list(networks), *((1, LEAST_TURNS) if setting.quick else (WARM_UPS, TURNS))
    for turn in range(warm_ups + turns if "stored" in networks else 0):
        if setting.left() <= 0:
            break
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            networks[name].zero_grad(set_to_none=True)
            own = x.clone()  # memcnn takes its input's memory away
            gc.collect()
            taken = duration(x.device, lambda name=name, own=own: train(networks[name], own))  # type: ignore[misc]
            if turn >= warm_ups:
                seconds[name].append(taken)
    return seconds


def duration(device: torch.device, function: Callable[[], None]) -> float:
    """Seconds, on a GPU between two events of its stream."""
    if device.type == "cpu":
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def largest_side(device: torch.device, depth: int) -> int:
    """Of a cube at which the stored chain, of about four activations a coupling, fits in half of the memory."""
    free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else 2**30
    fits = [side for side in SIDES if 4 * CHANNELS * side**3 * 5 * depth <= free / 2]
    return (fits or SIDES[-1:])[0]


def cells(own: dict[str, Any], depths: tuple[int, ...], unit: int) -> list[str]:
    """A contender's row, memory in activations."""
    none = "-"
    low, middle, high = own.get("ratio_quartiles", (0.0, 0.0, 0.0))
    per_depth = [own.get(f"depth {n}") for n in depths]
    return [
        f"{1000 * own['median']:.1f}" if "median" in own else none,
        f"{middle:.2f} ({low:.2f} to {high:.2f})" if "median" in own else none,
        f"{own['gradient error']:.0e}" if "gradient error" in own else none,
        *[f"{m['peak'] / unit:.1f}" if m else none for m in per_depth],
        f"{per_depth[-1]['kept'] / unit:.1f}" if per_depth[-1] else none,
    ]


CHECKS = [
    Check("tests", 6, run_tests),
    Check("engine, float32", 1, partial(measure_engine, precision=torch.float32, last=False)),
    Check("engine, bfloat16 autocast", 1, partial(measure_engine, precision=torch.bfloat16, last=False)),
    Check("engine, float16 autocast", 1, partial(measure_engine, precision=torch.float16, last=False)),
    Check("engine, float32, channels last", 1, partial(measure_engine, precision=torch.float32, last=True)),
    Check("engine, bfloat16 autocast, channels last", 1, partial(measure_engine, precision=torch.bfloat16, last=True)),
]
