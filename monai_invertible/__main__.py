"""The command line, ``python -m monai_invertible COMMAND``.

A command is a function that adds its parser and sets ``run``, a function of the parsed arguments; see ``COMMANDS``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["main"]


def add_sample_data(commands: Any) -> None:
    """``sample-data fastmri DIR``: write a sample set in a data set's own format."""
    parser = commands.add_parser("sample-data", help="write sample data in the format of a public data set")
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    fastmri = formats.add_parser(
        "fastmri",
        help="fastMRI single-coil k-space, simulated from real MRI",
        description="Write singlecoil_train, singlecoil_val and singlecoil_test below DIR. It takes seconds.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    fastmri.add_argument("directory", metavar="DIR", help="a new or empty directory")
    fastmri.add_argument("--train", type=int, default=8, metavar="N", help="subjects to train on")
    fastmri.add_argument("--val", type=int, default=3, metavar="N", help="other subjects, with references")
    fastmri.add_argument("--test", type=int, default=2, metavar="N", help="other subjects, under-sampled")
    fastmri.add_argument("--slices", type=int, default=8, metavar="N", help="slices a subject")
    fastmri.add_argument("--size", type=int, default=192, metavar="PIXELS", help="rows and columns of an image")
    fastmri.add_argument("--seed", type=int, default=0, help="the same seed gives the same data")
    fastmri.add_argument("--overwrite", action="store_true", help="replace a sample set in DIR")
    fastmri.set_defaults(run=run_sample_data_fastmri)


def run_sample_data_fastmri(arguments: argparse.Namespace) -> None:
    from monai_invertible.data import write_fastmri_sample

    options = {k: v for k, v in vars(arguments).items() if k not in ("command", "format", "run")}
    write_fastmri_sample(**options, progress=lambda line: print(line, flush=True))


COMMANDS = (add_sample_data,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if it succeeds. An expected error is one line on the error stream, and 1."""
    parser = argparse.ArgumentParser(prog="python -m monai_invertible", description="Invertible networks for MONAI.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    parsed = parser.parse_args(arguments)
    try:
        parsed.run(parsed)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
