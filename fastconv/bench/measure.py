"""Timing candidates beside each other: turns in rotated order, medians, ratios, means.

A thread pool goes on spinning for a while after its call (ONNX Runtime, OpenBLAS, both GNU OpenMP runtimes), and takes
a core from whoever comes next. None of them is told not to: that would hold it back within its own calls. Instead a
candidate's turn begins when the process has come to rest, and then makes several calls back to back, the first of
which is dropped because it wakes the candidate's own threads and warms its memory.
"""

from __future__ import annotations

import contextlib
import gc
import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from .._core.arrays import Array

TURN_SECONDS: Final = 0.03  # timed calls of one turn: long against the clock, short against drifts of the machine
MOST_CALLS: Final = 50
SAMPLE_SECONDS: Final = 50e-6  # shorter calls are timed several at once: a look at the clock costs about 0.1 µs
WARM_SECONDS: Final = 0.001  # dropped at the start of a turn: one call, or as many as fit in
SLOW_SECONDS: Final = 0.15  # a call from here on makes up a turn by itself and needs no warming
REST_LIMIT: Final = 0.3  # seconds at most to wait for other thread pools; ONNX Runtime's spins for tens of milliseconds
# Of the largest magnitude: an answer further off is wrong. In 8 bits everybody rounds in places of his own, and a net
# that was quantised by its library has other grids.
TOLERANCE: Final = {"float32": 1e-3, "float64": 1e-9, "bfloat16": 0.05, "int8": 0.25}


@dataclass
class Candidate:
    """One way to compute a case: `run` makes the call that is timed, `read` its result in the logical axis order."""

    peer: str
    variant: str
    run: Callable[[], Any]
    read: Callable[[Any], Array]
    note: str = ""
    error: float = math.nan  # max |y - reference| / max |reference|
    correct: bool = True
    samples: list[float] = field(default_factory=list)  # seconds a call

    @property
    def median(self) -> float:
        return statistics.median(self.samples) if self.samples else math.nan


def relative_error(result: Array, reference: Array) -> float:
    """max |result - reference| / max |reference|; infinity for another shape or where a value is not finite."""
    if result.shape != reference.shape:
        return math.inf
    scale = float(np.abs(reference).max(initial=0.0))
    difference = float(np.abs(result.astype(np.float64) - reference).max(initial=0.0))
    if not math.isfinite(difference):
        return math.inf
    return difference / scale if scale else (0.0 if difference == 0.0 else math.inf)


def check(candidate: Candidate, reference: Array, dtype: str) -> None:
    """Run the candidate once and note whether its answer is right."""
    candidate.error = relative_error(candidate.read(candidate.run()), reference)
    candidate.correct = candidate.error <= TOLERANCE[dtype]


def rest(limit: float = REST_LIMIT) -> None:
    """Wait until every other thread of this process sleeps, `limit` seconds at most.

    The process' CPU time would not do: Linux adds a running thread's share only every few milliseconds.
    """
    until = time.perf_counter() + limit
    time.sleep(0.001)
    while _others_run() and time.perf_counter() < until:
        time.sleep(0.001)


def _others_run() -> bool:
    """Whether another thread of this process runs or wants to; where the system does not say, whether it just did."""
    own = str(threading.get_native_id())
    try:
        threads = os.listdir("/proc/self/task")
    except OSError:
        before, cpu = time.perf_counter(), time.process_time()
        time.sleep(0.01)
        return time.process_time() - cpu > 0.1 * (time.perf_counter() - before)
    for thread in threads:
        # "pid (name) state …"; the name may hold blanks and parentheses.
        with contextlib.suppress(OSError), open(f"/proc/self/task/{thread}/stat", encoding="utf-8") as file:
            if thread != own and file.read().rpartition(")")[2].split()[0] == "R":
                return True
    return False


def take_turn(candidate: Candidate, expected: float) -> None:
    """One turn of a candidate whose call takes about `expected` seconds: adds to its samples."""
    run, clock = candidate.run, time.perf_counter
    inner = max(1, math.ceil(SAMPLE_SECONDS / max(expected, 1e-9)))
    count = min(max(2, round(TURN_SECONDS / (inner * expected))), MOST_CALLS) if expected < SLOW_SECONDS else 1
    rest()
    if expected < SLOW_SECONDS:
        until = clock() + WARM_SECONDS
        run()
        while clock() < until:
            run()
    repeats = range(inner)
    for _ in range(count):
        before = clock()
        for _ in repeats:
            run()
        candidate.samples.append((clock() - before) / inner)


def expected_seconds(candidate: Candidate) -> float:
    """Roughly the time of one call, the best of a few."""
    best, spent = math.inf, 0.0
    while spent < 0.005 or (best < 1e-3 and spent < 0.01):
        before = time.perf_counter()
        candidate.run()
        elapsed = time.perf_counter() - before
        best, spent = min(best, elapsed), spent + elapsed
    return best


def time_interleaved(candidates: Sequence[Candidate], rounds: int, seconds: float | None = None) -> int:
    """Give every candidate a turn a round, the first one another each round; the number of rounds made.

    With `seconds` rounds go on until that much time has passed, but at least three are made.
    """
    expected = [expected_seconds(candidate) for candidate in candidates]
    collecting = gc.isenabled()
    gc.disable()
    start, made = time.perf_counter(), 0
    try:
        while made < rounds if seconds is None else made < 3 or time.perf_counter() - start < seconds:
            for step in range(len(candidates)):
                turn = (step + made) % len(candidates)
                take_turn(candidates[turn], expected[turn])
            made += 1
    finally:
        if collecting:
            gc.enable()
    return made


def geometric_mean(values: Iterable[float]) -> float:
    """exp(mean(log(values))) of positive values; NaN of none."""
    logarithms = [math.log(value) for value in values]
    return math.exp(statistics.fmean(logarithms)) if logarithms else math.nan
