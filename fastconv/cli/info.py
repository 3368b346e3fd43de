"""Show what is installed and what it uses: version, instruction set, threads and why there are so many."""

from __future__ import annotations

import argparse
import json

from ..functional import info


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    print(json.dumps(info()) if args.json else info())
    return 0
