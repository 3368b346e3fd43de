"""Put fastconv to work on real data; two minutes on two cores.

It convolves a photograph with 3x3 and 5x5 filters, SAME and VALID, strides 1 and 2; trains a small convolutional net
on 4,000 handwritten digits, tests it on 1,000 others and reads a page of digits in one pass; and times forward, input
gradient and weight gradient beside NumPy. Pictures and report.txt land in the output folder.

Needs the extra packages of fastconv[demo]; they hold the data, and nothing is downloaded.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime

from ..common import CommandError, at_least, output_folder, require
from ..machine import one_line
from .data import DIGITS, PHOTOGRAPH, inside

ACCURACY = 0.97  # what the net must reach, a little below what it does, as rounding differs between machines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to, how long and by which seed."""
    parser.add_argument(
        "--output", default="demo-output", metavar="FOLDER", help="folder of the results (default: %(default)s)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a quarter of the digits, two epochs, one timing: a look in seconds"
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, metavar="S", help="seed of all that is random (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the three parts; 1 if the net learnt too little."""
    for name in ("matplotlib", "threadpoolctl"):  # said before minutes have passed, not after
        require(name, "demo")
    for file in (PHOTOGRAPH, DIGITS):
        inside(*file)
    folder = output_folder(args.output)
    from . import digits, photo, timing

    start, show = time.perf_counter(), sys.stderr.isatty()
    report: list[str] = []

    def section(title: str, lines: list[str]) -> None:
        text = ["", title, "-" * len(title), *lines]
        report.extend(text)
        print("\n".join(text), flush=True)

    section("fastconv demo", [f"{one_line()}; {datetime.now():%Y-%m-%d %H:%M}"])
    section("1. Filters", photo.run(folder))
    lines, accuracy = digits.run(folder, args.seed, args.quick, show)
    section("2. Digits", lines)
    section("3. Time", timing.run(args.quick, show))
    path = folder / "report.txt"
    section("Done", [f"{time.perf_counter() - start:.0f} s; this report: {path}"])
    path.write_text("\n".join(report).lstrip() + "\n", encoding="utf-8")
    if accuracy < ACCURACY and not args.quick:
        raise CommandError(
            f"the net reads only {accuracy:.1%} of the held-out digits; at least {ACCURACY:.0%} expected"
        )
    return 0
