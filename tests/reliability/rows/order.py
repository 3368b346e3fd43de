"""What `make reliability-order` found, which takes as long as twenty suites: its saved result as a row."""

from __future__ import annotations

import json

from reliability.board import Outcome, row
from reliability.order import BACKEND_EVERY, CASES, OWN_PROCESS, SAVED


@row("the suite 20 times in random order (make reliability-order; a case is a test of a round)", "0 failures",
     quick=None, full=20, order=300)  # fmt: skip
def random_order(count: int) -> Outcome:
    """The rounds as saved; what they leave out is said with them."""
    rounds = json.loads(SAVED.read_text()) if SAVED.exists() else []
    if len(rounds) < count:
        return Outcome(skipped=f"only {len(rounds)} of {count} rounds so far: make reliability-order goes on")
    outcome = Outcome(cases=sum(r["tests"] for r in rounds))
    for one in rounds:
        for failure in one["failures"]:
            outcome.fail(f"seed {one['seed']}, {one['commit']}: {failure}")
    dates = sorted({r["date"] for r in rounds})
    commits = len({r["commit"] for r in rounds})
    outcome.measured = (
        f"{len(rounds)} rounds, seeds {rounds[0]['seed']} to {rounds[-1]['seed']}, {' to '.join(dates)}, {commits} "
        f"commits; {CASES} generated problems a kind; ONNX's node tests in every {BACKEND_EVERY}th round; without what "
        f"runs in processes of its own: {', '.join(OWN_PROCESS)}"
    )
    return outcome
