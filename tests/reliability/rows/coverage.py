"""What `make reliability-coverage` counted, which takes too long for a tier: its saved result as a row."""

from __future__ import annotations

from reliability.board import Outcome, isas_available, row
from reliability.coverage import percent, saved, words

NATIVE, PYTHON = 95, 90  # percent of the lines


@row("line and branch coverage of the native code under each ISA and of the Python code by the tests",
     "lines: native ≥ 95 % under each ISA, Python ≥ 90 %", quick=None, full=1, order=295)  # fmt: skip
def coverage(_: int) -> Outcome:
    figures = saved()
    if missing := [part for part in (*isas_available(), "python") if part not in figures]:
        return Outcome(skipped=f"not counted for {', '.join(missing)} yet: make reliability-coverage")
    outcome = Outcome(measured="; ".join(f"{part}: {words(f)}" for part, f in figures.items()))
    for part, f in figures.items():
        native = f.get("c", f)
        outcome.check(percent(native["lines"]) >= (PYTHON if part == "python" else NATIVE), f"{part}: {words(f)}")
    return outcome
