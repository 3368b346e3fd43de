"""Compare the compiled code with the NumPy reference on this machine.

Every public operation, its gradients included, computes generated problems: odd kernels, strides, dilations, groups,
paddings, layouts, element types, empty axes. Integer-valued data must come out exactly equal. Real-valued data must
stay within the stated error bound, the worst error is printed in units of it: 1 would be the bound itself. Direct
sums of n terms keep (min(n, 4096) + 2) u S + (n + 2) eta, S the sum of the terms' magnitudes, u the unit roundoff and
eta the smallest number; Winograd and Strassen keep bounds of their own, which follow the largest values of a plane and
of an image. All are those of docs/accuracy.md.

Each algorithm is asked for by name, so that small problems reach all of them. The exit status is 1 if anything
differs. The same seed gives the same problems everywhere.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from .. import _native
from .._core.progress import Progress
from ..testing.comparisons import OPERATIONS, Operation
from .common import STDOUT, CommandError, add_json, at_least, in_a_folder, write_json
from .machine import describe, one_line

SEED_STRIDE = 1_000_000  # problems are drawn by index: a seed starts there, so that no two seeds share any
DRAWN = 50  # problems drawn at a time: a million of them are not held in memory
MOST_FAULTS = 5  # printed in full


@dataclass(slots=True)
class Outcome:
    """What the problems of one operation showed."""

    operation: str
    cases: int = 0
    exact: int = 0  # arrays that had to be equal, and were
    bounded: int = 0  # arrays that had to keep the bound, and did
    worst: float = 0.0  # error of the latter, in units of the bound
    failed: int = 0
    faults: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many problems, which ones and on which kernels."""
    parser.add_argument(
        "--cases", type=at_least(1), default=300, metavar="N", help="problems an operation (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, metavar="S", help="another seed, other problems (default: %(default)s)"
    )
    parser.add_argument(
        "--isa", metavar="NAME", help="'all' or one instruction set that `fastconv info` offers (default: that in use)"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Check each instruction set in turn; 1 if anything failed."""
    in_a_folder(args.json)
    start, before = time.perf_counter(), _native.isa_name()
    results: dict[str, list[Outcome]] = {}
    shown = args.json != STDOUT
    if shown:
        print(one_line(isa=False))
    try:
        for isa in _wanted(args.isa):
            _native.isa_use(isa)
            results[isa] = list(_check(isa, args.cases, args.seed * SEED_STRIDE))
            if shown:
                _print_table(isa, results[isa])
    finally:
        _native.isa_use(before)
    failed = sum(outcome.failed for outcomes in results.values() for outcome in outcomes)
    seconds = time.perf_counter() - start
    write_json(_report(args, results, failed, seconds), args.json)
    if shown:
        compared = sum(o.exact + o.bounded for outcomes in results.values() for o in outcomes)
        verdict = f"{failed} FAILED" if failed else "All equal or within the bound"
        print(f"\n{verdict}: {compared:,} arrays compared in {seconds:.1f} s")
    return 1 if failed else 0


def _wanted(name: str | None) -> tuple[str, ...]:
    offered = _native.isas_available()
    if name is None:
        return (_native.isa_name(),)
    if name == "all":
        return offered
    if name not in offered:
        raise CommandError(f"--isa {name}: this machine offers {', '.join(offered)} (or all)")
    return (name,)


def _check(isa: str, count: int, first: int) -> Iterator[Outcome]:
    """The outcome of every operation, under one progress bar."""
    with Progress(count * len(OPERATIONS), isa, sys.stderr.isatty(), "cases") as bar:
        for operation in OPERATIONS:
            outcome = Outcome(operation.name)
            for begin in range(0, count, DRAWN):
                wanted = min(DRAWN, count - begin)
                cases = operation.cases(wanted, first + begin)
                for case in cases:
                    _compare(operation, case, outcome)
                    bar.step(1)
                bar.step(wanted - len(cases))  # some have nothing for Winograd to do
            yield outcome


def _compare(operation: Operation, case: Any, outcome: Outcome) -> None:
    """Count what one problem shows. An exception of the code under test is a failure as well."""
    outcome.cases += 1
    try:
        for comparison in operation.compare(case):
            if fault := comparison.fault():
                outcome.failed += 1
                outcome.faults.append(f"{case}\n    {fault}")
            elif comparison.bound is None:
                outcome.exact += 1
            else:
                outcome.bounded += 1
            if comparison.bound is not None:
                outcome.worst = max(outcome.worst, comparison.worst())
    except Exception as error:
        outcome.failed += 1
        outcome.faults.append(f"{case}\n    {type(error).__name__}: {error}")


def _print_table(isa: str, outcomes: list[Outcome]) -> None:
    width = max(len(outcome.operation) for outcome in outcomes)
    print(f"\n{isa:<{width}}  {'cases':>6}  {'exact':>6}  {'bounded':>7}  {'worst / bound':>13}  {'failed':>6}")
    for o in outcomes:
        worst = f"{o.worst:.3f}" if o.bounded or o.worst else "-"
        print(f"{o.operation:<{width}}  {o.cases:>6}  {o.exact:>6}  {o.bounded:>7}  {worst:>13}  {o.failed:>6}")
    faults = [fault for outcome in outcomes for fault in outcome.faults]
    for fault in faults[:MOST_FAULTS]:
        print(f"  FAILED {fault}")
    if len(faults) > MOST_FAULTS:
        print(f"  ... and {len(faults) - MOST_FAULTS} more")
    sys.stdout.flush()


def _report(args: argparse.Namespace, results: dict[str, list[Outcome]], failed: int, seconds: float) -> dict[str, Any]:
    """For programs."""

    def row(outcome: Outcome) -> dict[str, Any]:
        return {**asdict(outcome), "faults": outcome.faults[:MOST_FAULTS]}

    return {
        "machine": describe(),
        "cases": args.cases,
        "seed": args.seed,
        "failed": failed,
        "seconds": round(seconds, 3),
        "results": {isa: [row(outcome) for outcome in outcomes] for isa, outcomes in results.items()},
    }
