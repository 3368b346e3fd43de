"""What fuzzing found: its corpus again, call by call, and the saved account of `make fuzz`, which takes hours."""

from __future__ import annotations

import json
from collections import Counter

from fuzz import calls, files
from fuzz.__main__ import CORPUS, HARNESSES, SAVED

from reliability.board import Outcome, row


@row("corpus of the fuzzers: calls of every function, hostile ones among them, each judged by the reference",
     "0 crashes, 0 wrong answers", quick=1, full=1, order=284, every_isa=True)  # fmt: skip
def fuzz_corpus(count: int) -> Outcome:
    """All of it in both tiers."""
    files.limit_memory()
    outcome = Outcome()
    verdicts: Counter[str] = Counter()
    for path in sorted((CORPUS / "api").glob("*")):
        print(path.name, flush=True)  # the last words of a crash
        try:
            verdict = calls.run(path.read_bytes())
        except Exception as error:
            verdict = f"{type(error).__name__}: {error}"
        verdicts[verdict] += 1
        outcome.check(verdict in ("computed", "refused"), f"{path.name}: {verdict}")
    outcome.measured = f"{verdicts['computed']} computed, {verdicts['refused']} refused"
    return outcome


@row("fuzzing: libFuzzer on the native code, atheris on the Python API and the readers of files (make fuzz)",
     "0 crashes in the hours given", quick=None, full=1, order=285)  # fmt: skip
def fuzzing(count: int) -> Outcome:
    """A crash counts until a later run of the same harness has none."""
    runs = json.loads(SAVED.read_text()) if SAVED.exists() else []
    outcome = Outcome()
    words = []
    for harness in HARNESSES:
        mine = [run for run in runs if run["harness"] == harness.name]
        if not mine:
            return Outcome(skipped=f"{harness.name} has not run yet: make fuzz goes on")
        outcome.cases += sum(run["executions"] for run in mine)
        if mine[-1]["crashes"]:
            outcome.fail(f"{harness.name}: {mine[-1]['crashes']} on {mine[-1]['date']}, {mine[-1]['commit']}")
        minutes = sum(run["seconds"] for run in mine) / 60
        words.append(f"{harness.name}: {sum(run['executions'] for run in mine):,} executions in {minutes:.0f} minutes")
    outcome.measured = "; ".join(words)
    return outcome
