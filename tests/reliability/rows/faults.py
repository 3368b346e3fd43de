"""What `make reliability-faults` found, which takes too long for a tier: its saved result as a row."""

from __future__ import annotations

import json

from reliability.board import Outcome, row
from reliability.faults import SAVED
from reliability.mutations import MUTATIONS

MUST_NOTICE = 62


@row("planted faults: 64 mutations of the kernels and geometry, each in a build of its own",
     "the quick tier and the tests notice ≥ 62 of 64", quick=None, full=64, order=290)  # fmt: skip
def planted_faults(count: int) -> Outcome:
    results = {r["what"]: r for r in json.loads(SAVED.read_text())} if SAVED.exists() else {}
    planted = [results[m.what] for m in MUTATIONS if m.what in results]
    if len(planted) < count:
        return Outcome(skipped=f"only {len(planted)} of {count} planted so far: make reliability-faults goes on")
    survived = [str(r["what"]) for r in planted if not r["noticed_by"]]
    outcome = Outcome(cases=len(planted), measured="".join(f"not noticed: {what}" for what in survived))
    if len(planted) - len(survived) < MUST_NOTICE:
        for what in survived:
            outcome.fail(what)
    return outcome
