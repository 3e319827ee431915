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
    """``sample-data fastmri|brats|iseg|hcp|maps|cityscapes|cifar10 DIR``: write sample data in a data set's format."""
    parser = commands.add_parser("sample-data", help="write sample data in the format of a public data set")
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    fastmri = add_format(
        formats,
        "fastmri",
        "fastMRI single-coil k-space, simulated from real MRI",
        "Write singlecoil_train, singlecoil_val and singlecoil_test below DIR. It takes seconds.",
    )
    fastmri.add_argument("--train", type=int, default=8, metavar="N", help="subjects to train on")
    fastmri.add_argument("--val", type=int, default=3, metavar="N", help="other subjects, with references")
    fastmri.add_argument("--test", type=int, default=2, metavar="N", help="other subjects, under-sampled")
    fastmri.add_argument("--slices", type=int, default=8, metavar="N", help="slices a subject")
    fastmri.add_argument("--size", type=int, default=192, metavar="PIXELS", help="rows and columns of an image")
    brats = add_format(
        formats,
        "brats",
        "BraTS 2020: FLAIR, T1, T1ce and T2 of brains with a tumour, and its labels, simulated",
        "Write BraTS20_Training_001, ... below DIR. A subject of full size takes about 5 seconds.",
    )
    brats.add_argument("--subjects", type=int, default=8, metavar="N", help="how many subjects")
    brats.add_argument("--size", type=int, default=240, metavar="VOXELS", help="voxels from left to right")
    iseg = add_format(
        formats,
        "iseg",
        "iSeg-2019: T1 and T2 of infant-like brains, and their tissue labels, simulated",
        "Write subject-1-T1.hdr, ... below DIR. A subject of full size takes about 3 seconds.",
    )
    iseg.add_argument("--subjects", type=int, default=10, metavar="N", help="how many subjects")
    iseg.add_argument("--size", type=int, default=256, metavar="VOXELS", help="voxels along the longest edge")
    hcp = add_format(
        formats,
        "hcp",
        "HCP: diffusion-weighted volumes, b-values, directions and brain masks, simulated",
        "Write 900001/T1w/Diffusion/data.nii.gz, ... below DIR. A subject takes about 2 seconds; of full size (174) "
        "about a minute.",
    )
    hcp.add_argument("--subjects", type=int, default=8, metavar="N", help="how many subjects")
    hcp.add_argument("--size", type=int, default=72, metavar="VOXELS", help="voxels from back to front")
    for name, summary, unit in (
        ("maps", "pix2pix's Maps: satellite pictures and maps, cut from two pictures of the Earth", "tiles"),
        ("cityscapes", "pix2pix's Cityscapes: photos and labels, made from their colours by a rule", "photos"),
    ):
        pictures = add_format(formats, name, summary, "Write train, val, trainA, ... below DIR. It takes seconds.")
        pictures.add_argument("--train", type=int, default=96, metavar="N", help="pairs to train on")
        pictures.add_argument("--val", type=int, default=24, metavar="N", help=f"pairs of other {unit}")
        pictures.add_argument("--size", type=int, default=256, metavar="PIXELS", help="rows and columns of a picture")
    cifar10 = add_format(
        formats,
        "cifar10",
        "CIFAR-10 for Python: pieces of ten real pictures, which are the classes",
        "Write cifar-10-batches-py below DIR: five batches to train on and one to test. It takes seconds.",
    )
    cifar10.add_argument("--images", type=int, default=6000, metavar="N", help="of all batches, a multiple of 60")


def add_format(formats: Any, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    """A parser with the arguments that every format has."""
    parser: argparse.ArgumentParser = formats.add_parser(
        name, help=summary, description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("directory", metavar="DIR", help="a new or empty directory")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same data")
    parser.add_argument("--overwrite", action="store_true", help="replace a sample set in DIR")
    parser.set_defaults(run=run_sample_data)
    return parser


def run_sample_data(arguments: argparse.Namespace) -> None:
    from monai_invertible import data

    write = getattr(data, f"write_{arguments.format}_sample")
    options = {k: v for k, v in vars(arguments).items() if k not in ("command", "format", "run")}
    write(**options, progress=lambda line: print(line, flush=True))


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
