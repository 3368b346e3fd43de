"""One row's cases shared among processes, a core each."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from reliability.board import Outcome, cores, first_case

ALONE = 60  # so few cases are done before a process has started
PIECES = 6  # of a process, so that none waits long for the last


@dataclass
class Found:
    """What a worker found: the outcome, how often things happened, and which distinct ones were met."""

    outcome: Outcome = field(default_factory=Outcome)
    counts: Counter[str] = field(default_factory=Counter)
    met: set[Any] = field(default_factory=set)
    worst: dict[str, float] = field(default_factory=dict)

    def raise_worst(self, name: str, value: float) -> None:
        """Keep the largest value of a name."""
        self.worst[name] = max(self.worst.get(name, 0.0), value)

    def add(self, other: Found) -> None:
        self.outcome.cases += other.outcome.cases
        for failure in other.outcome.failures:
            self.outcome.fail(failure)
        self.outcome.failed += other.outcome.failed - len(other.outcome.failures)
        self.counts += other.counts
        self.met |= other.met
        for name, value in other.worst.items():
            self.raise_worst(name, value)


def share(work: Callable[[range], Found], count: int, environment: dict[str, str] | None = None) -> Found:
    """`work` over pieces of `count` indices from the row's first on, in processes with these environment variables.

    The processes are new ones, not forked: what the parent has loaded or started is not theirs. One that crashes is a
    failure that names its cases.
    """
    if count <= ALONE and environment is None:
        return work(range(first_case(), first_case() + count))
    processes = cores()
    # Teams of threads in several processes must not spin for each other, and the judge's products need no team.
    os.environ.update({"OMP_WAIT_POLICY": "passive", "OPENBLAS_NUM_THREADS": "1", **(environment or {})})
    indices = range(first_case(), first_case() + count)
    pieces = [indices[start :: processes * PIECES] for start in range(min(count, processes * PIECES))]
    total = Found()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(work, piece): piece for piece in pieces}
        for future, piece in waiting.items():
            try:
                total.add(future.result())
            except BrokenProcessPool:
                total.outcome.check(False, f"a process died in cases {piece}, or in those beside it")
    return total
