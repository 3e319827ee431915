"""What can be known only on a GPU, by one command: the tests of ``tests/gpu``, and the engine's benchmark.

Writes ``gpu_check.json``, all that was found, and ``gpu_check.md``, the table, with date, card, driver, torch and
command. The files are written anew after each check, so that a run that is ended from outside leaves what it had. What
the time did not suffice for is listed as not run.

    python benchmarks/gpu_check.py [--minutes 8] [--checks NAME ...] [--output FOLDER]
    python benchmarks/gpu_check.py --device cpu --quick --output FOLDER    (a rehearsal on the processor)

Exit code: 0 all passed, 1 something failed, 2 there is no GPU (nothing is run, nothing written), 3 nothing failed, but
not all was run.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import math
import os
import platform
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from common import machine, results, table
from gpu_checks import CHECKS, Result, Setting

NO_GPU = (
    "gpu_check: torch.cuda is not available here, so nothing was run and nothing written "
    "(--device cpu --quick --output FOLDER rehearses on the processor)."
)
MEASUREMENT = "Measured on a GPU"
REHEARSAL = "Rehearsal on the processor: nothing here was measured on a GPU"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [check.name for check in CHECKS]
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu is a rehearsal")
    parser.add_argument("--quick", action="store_true", help="few tests and small sizes, to see whether it runs")
    parser.add_argument("--minutes", type=float, default=8, help="stop after so long (default 8)")
    parser.add_argument("--checks", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--output", type=Path, help="folder (default benchmarks/results; of a rehearsal and quick/)")
    chosen = parser.parse_args()
    real = results(quick=False)
    chosen.output = chosen.output or results(quick=chosen.quick or chosen.device == "cpu")
    if chosen.device == "cpu" and chosen.output.resolve() == real.resolve():
        parser.error(f"a rehearsal must not take the place of a measurement in {real}: give another --output")
    return chosen


def command_output(*command: str) -> str:
    """What a command prints, or nothing where it does not exist or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def circumstances(device: str) -> dict[str, Any]:
    """When, where and with what."""
    found: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["python", "benchmarks/gpu_check.py", *sys.argv[1:]]),
        "commit": command_output("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"),
        "machine": machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "card": None,
    }
    if device == "cuda":
        card = torch.cuda.get_device_properties(torch.cuda.current_device())
        driver = command_output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        found |= {
            "card": card.name,
            "card_memory_bytes": card.total_memory,
            "compute_capability": f"{card.major}.{card.minor}",
            "driver": driver.splitlines()[0] if driver else "unknown",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found


def plain(value: Any) -> Any:
    """As JSON has it, which knows no infinite numbers: these become text."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write(folder: Path, where: dict[str, Any], device: str, taken: float, found: dict[str, dict[str, Any]]) -> str:
    """Both files, each put in place as a whole; the text of the table."""
    kind = MEASUREMENT if device == "cuda" else REHEARSAL
    report = {"kind": kind, **where, "seconds": round(taken, 1), "checks": list(found.values())}
    rows = [
        [name, c["status"], f"{c['seconds']:.0f}", c["reason"].replace("\n", " ")[:200]] for name, c in found.items()
    ]
    card = f"{where['card']}, driver {where['driver']}, CUDA {where['cuda']}; " if where["card"] else ""
    parts = [
        f"# {kind}",
        table(["check", "status", "seconds", "why"], rows),
        "Engine: forward, mean square and backward of the chain of `engine_vs_peers.py`; contenders take turns, each "
        "ratio is to the stored step of the same turn. Gradient error: distance from the stored gradient in the same "
        "precision, relative to its size. Memory in activations in single precision, the input of the step among them: "
        + ("by the allocator, with the workspace of kernels." if device == "cuda" else "living tensors."),
        *[f"## {name}\n\n{c['text']}" for name, c in found.items() if c["text"]],
        f"`{where['command']}`  \n{card}{where['machine']}; {where['commit'] or 'no commit'}",
    ]
    text = "\n\n".join(parts) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("gpu_check.json", json.dumps(plain(report), indent=1, allow_nan=False)),
        ("gpu_check.md", text),
    ):
        part = folder / f"{name}.part"
        part.write_text(content)
        os.replace(part, folder / name)
    return text


def main() -> int:
    start = time.monotonic()
    chosen = options()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 2
    device, deadline = torch.device(chosen.device), start + 60 * chosen.minutes
    where, text = circumstances(chosen.device), ""
    checks = [check for check in CHECKS if check.name in chosen.checks]
    missing = {"status": "not run", "seconds": 0.0, "reason": "not reached in time", "text": "", "data": {}}
    found: dict[str, dict[str, Any]] = {check.name: {"name": check.name, **missing} for check in checks}
    for i, check in enumerate(checks):
        begin = time.monotonic()
        if begin < deadline:
            print(f"== {check.name}", flush=True)
            share = check.share / sum(later.share for later in checks[i:])
            try:
                result = check.run(Setting(device, chosen.quick, begin + share * (deadline - begin)))
            except Exception as error:  # the others are run all the same
                result = Result("failed", "", {"traceback": traceback.format_exc()}, f"{type(error).__name__}: {error}")
            found[check.name] |= {**result._asdict(), "seconds": round(time.monotonic() - begin, 1)}
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
        text = write(chosen.output, where, chosen.device, time.monotonic() - start, found)
    print(text)
    statuses = {c["status"] for c in found.values()}
    return 1 if "failed" in statuses else 3 if "not run" in statuses else 0


if __name__ == "__main__":
    sys.exit(main())
