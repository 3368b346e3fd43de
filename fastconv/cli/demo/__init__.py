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
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from datetime import datetime
from typing import Any

from ..common import STDOUT, CommandError, add_json, at_least, in_a_folder, output_folder, require, write_json
from ..machine import describe, one_line
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
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run the three parts; 1 if the net learnt too little."""
    in_a_folder(args.json)
    for name in ("matplotlib", "threadpoolctl"):  # said before minutes have passed, not after
        require(name, "demo")
    for file in (PHOTOGRAPH, DIGITS):
        inside(*file)
    # Standard output is for the JSON alone if that is wanted there; what is said on the way goes with the errors.
    with redirect_stdout(sys.stderr) if args.json == STDOUT else nullcontext():
        content = _parts(args)
    write_json(content, args.json)
    if content["accuracy"] < ACCURACY and not args.quick:
        raise CommandError(
            f"the net reads only {content['accuracy']:.1%} of the held-out digits; at least {ACCURACY:.0%} expected"
        )
    return 0


def _parts(args: argparse.Namespace) -> dict[str, Any]:
    """Filters, digits, time: the sections on the terminal and in report.txt, and the figures."""
    folder = output_folder(args.output)
    from . import digits, photo, timing

    start, show = time.perf_counter(), sys.stderr.isatty()
    sections: dict[str, list[str]] = {}

    def section(title: str, lines: list[str]) -> None:
        sections[title] = lines
        print("\n".join(_titled(title, lines)), flush=True)

    section("fastconv demo", [f"{one_line()}; {datetime.now():%Y-%m-%d %H:%M}"])
    section("1. Filters", photo.run(folder))
    lines, accuracy = digits.run(folder, args.seed, args.quick, show)
    section("2. Digits", lines)
    lines, rows = timing.run(args.quick, show)
    section("3. Time", lines)
    path, seconds = folder / "report.txt", time.perf_counter() - start
    section("Done", [f"{seconds:.0f} s; this report: {path}"])
    report = [line for title, lines in sections.items() for line in _titled(title, lines)]
    path.write_text("\n".join(report).lstrip() + "\n", encoding="utf-8")
    return {
        "machine": describe(), "seed": args.seed, "quick": args.quick, "seconds": round(seconds, 3),
        "accuracy": accuracy, "timing": [asdict(row) for row in rows], "report": str(path), "sections": sections,
    }  # fmt: skip


def _titled(title: str, lines: list[str]) -> list[str]:
    return ["", title, "-" * len(title), *lines]
