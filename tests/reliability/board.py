"""What a row is, and how one is run: in its own process, a tier at a time."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TIERS = ("quick", "full")
KEPT_FAILURES = 20  # the first ones say what is wrong; thousands more would only fill the report
SECONDS = {"quick": 240, "full": 1500}  # a row that takes longer is taken for hung
APART = 1_000_000  # from the first case of one instruction set to that of the next: more than any row draws
# Rows that keep about one core busy and look at no clock: as many run beside each other as there are cores.
BESIDE = frozenset((
    "misaligned", "large_arrays", "overflowing_sizes", "array_layouts", "empty_axes", "dtype_matrix", "overlapping_out",
    "scratch", "allocation_failure", "bad_input", "onnx_files", "address_sanitizer", "thread_sanitizer", "memcheck",
    "pictures", "command_line",
))  # fmt: skip


@dataclass
class Outcome:
    """What one run of a row found. `measured` is the figure in words, made of numbers that the run counted."""

    cases: int = 0
    failures: list[str] = field(default_factory=list)
    measured: str = ""
    skipped: str = ""  # why the row cannot run here; such a row is neither passed nor failed
    failed: int = 0  # how many failures there were; `failures` keeps the first of them

    def fail(self, message: str) -> None:
        self.failed += 1
        if len(self.failures) < KEPT_FAILURES:
            self.failures.append(message)

    def check(self, ok: bool, message: str) -> None:
        """Count one case; `message` says which it was if it failed."""
        self.cases += 1
        if not ok:
            self.fail(message)

    @property
    def passed(self) -> bool:
        return not self.skipped and not self.failed and self.cases > 0


@dataclass(frozen=True)
class Row:
    """One line of the board: `run(count)` does `quick` or `full` cases (None: not part of that tier)."""

    name: str
    figure: str
    target: str
    quick: int | None
    full: int | None
    every_isa: bool
    order: int
    run: Callable[[int], Outcome]

    def count(self, tier: str) -> int | None:
        return self.quick if tier == "quick" else self.full


@dataclass(frozen=True)
class Result:
    """A row after its run, as the table and the JSON file show it."""

    name: str
    figure: str
    target: str
    got: str
    passed: bool
    skipped: str
    cases: int
    seconds: float
    failures: list[str]


_rows: dict[str, Row] = {}
_first = 0


def first_case() -> int:
    """The index of the first case that a row draws in this process."""
    return _first


def row(
    figure: str, target: str, *, quick: int | None, full: int | None, order: int, every_isa: bool = False
) -> Callable[[Callable[[int], Outcome]], Callable[[int], Outcome]]:
    """Register a function `run(count) -> Outcome` as a row; its name is the row's.

    `every_isa` runs it once under each instruction set available here, each with its share of the count, of cases of
    its own: those from `first_case()` on. `order` is the row's place on the board.
    """

    def register(run: Callable[[int], Outcome]) -> Callable[[int], Outcome]:
        if run.__name__ in _rows:
            raise ValueError(f"two rows are called {run.__name__}")
        _rows[run.__name__] = Row(run.__name__, figure, target, quick, full, every_isa, order, run)
        return run

    return register


def rows() -> list[Row]:
    """Every row, in the board's order."""
    package = importlib.import_module("reliability.rows")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"reliability.rows.{module.name}")
    return sorted(_rows.values(), key=lambda r: (r.order, r.name))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def isas_available() -> list[str]:
    import fastconv

    return list(fastconv.info()["isas_available"])


def run_row(one: Row, tier: str) -> Result:
    """Run a row's tier in processes of its own and say what came of it."""
    count = one.count(tier)
    if count is None:
        raise ValueError(f"{one.name} is not part of the {tier} tier")
    isas: list[str | None] = list(isas_available()) if one.every_isa else [None]
    total = Outcome()
    words: list[str] = []
    begin = time.monotonic()
    for number, isa in enumerate(isas):
        outcome = _in_a_process(one.name, -(-count // len(isas)), isa, SECONDS[tier], number * APART)
        label = f"{isa}: " if isa else ""
        total.cases += outcome.cases
        total.failed += outcome.failed
        total.failures += [label + f for f in outcome.failures]
        total.skipped = total.skipped or outcome.skipped
        if outcome.measured and label + outcome.measured not in words:
            words.append(label + outcome.measured)
    got = total.skipped or f"{total.failed:,} of {total.cases:,} failed" + "".join(f"; {w}" for w in words)
    failures = total.failures[:KEPT_FAILURES]
    seconds = round(time.monotonic() - begin, 1)
    return Result(
        one.name, one.figure, one.target, got, total.passed, total.skipped, total.cases, seconds, failures
    )


def _in_a_process(name: str, count: int, isa: str | None, seconds: float, first: int = 0) -> Outcome:
    environment = {**os.environ, "PYTHONPATH": _path(), "PYTHONFAULTHANDLER": "1"}
    if isa:
        environment["FASTCONV_ISA"] = isa
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "outcome.json"
        command = [sys.executable, "-P", "-m", "reliability"]
        command += ["--one", name, "--count", str(count), "--first", str(first), "--json", str(answer)]
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return Outcome(cases=1, failed=1, failures=[f"hung: no answer in {seconds:.0f} s"])
        if done.returncode or not answer.exists():
            last = (done.stderr or done.stdout).strip()[-1500:]
            return Outcome(cases=1, failed=1, failures=[f"the process ended with {done.returncode}: {last}"])
        outcome = Outcome(**json.loads(answer.read_text()))
        if outcome.failed and done.stderr.strip():  # where a process that the row started died
            outcome.failures.append(f"standard error: {done.stderr.strip()[-600:]}")
        return outcome


def _path() -> str:
    """The PYTHONPATH of a row's process: this folder's parent, before what was there."""
    here = str(FOLDER.parent)
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([here, *(p for p in before if p not in ("", here))])


def run_here(name: str, count: int, first: int) -> dict[str, object]:
    """Run one row in this process; what its parent process reads."""
    global _first
    _first = first
    found = {r.name: r for r in rows()}
    if name not in found:
        raise SystemExit(f"no row is called {name}; there are {', '.join(found)}")
    return asdict(found[name].run(count))
