"""check."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="other data (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    return 0
