"""Memory that calls and threads leave behind."""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

import fastconv
from fastconv.testing.problems import conv_cases
from reliability.board import Outcome, row

CALLS, SHAPES, THREADS = 100_000, 5_000, 1_000
MOST_GROWTH = 2 << 20
WARM_UP = 2  # rounds over all shapes that fill caches of bounded size and grow the heap to what it needs
MOST_VALUES = 4_000  # of an input: small calls, so that there can be many


def _resident() -> int:
    """Bytes of this process in memory, after what can be given back has been."""
    gc.collect()
    with open("/proc/self/smaps_rollup", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Rss:")) << 10


@row(
    "100,000 calls over 5,000 shapes; 1,000 Python threads created and ended",
    "resident growth at most 2 MiB",
    quick=None, full=CALLS, order=180,
)  # fmt: skip
def leaks(count: int) -> Outcome:
    """Every call forward, and every fourth backward too; then threads that each compute with a team of two.

    In a process of one heap: glibc gives threads others, eight a core, and by chance one or the other grows by
    megabytes.
    """
    os.environ["MALLOC_ARENA_MAX"] = "1"
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_leaks, count).result()


def _leaks(count: int) -> Outcome:
    outcome = Outcome()
    distinct = {(case.input_shape, case.weight_shape): case for case in conv_cases(4 * SHAPES) if _small(case)}
    works = [_arrays(case) for case in distinct.values()][:SHAPES]
    shapes = len({(x.shape, w.shape) for x, w, _ in works})
    outcome.check(shapes == SHAPES, f"{shapes:,} distinct shapes, not {SHAPES:,}")
    for _ in range(WARM_UP):
        _round(works)
    before = _resident()
    calls = 0
    while calls < count:
        calls += _round(works)
    growth = _resident() - before
    outcome.cases += calls
    outcome.check(growth <= MOST_GROWTH, f"{growth:,} bytes more after {calls:,} calls")
    _threads(THREADS // 10)
    before = _resident()
    _threads(THREADS)
    of_threads = _resident() - before
    outcome.cases += THREADS
    outcome.check(of_threads <= MOST_GROWTH, f"{of_threads:,} bytes more after {THREADS:,} threads")
    outcome.measured = (
        f"{calls:,} calls over {shapes:,} shapes: {growth / 2**20:.2f} MiB more; "
        f"{THREADS:,} threads: {of_threads / 2**20:.2f} MiB more"
    )
    return outcome


def _small(case: Any) -> bool:
    return case.is_float and 0 < np.prod(case.input_shape) <= MOST_VALUES and np.prod(case.weight_shape) > 0


def _arrays(case: Any) -> tuple[Any, Any, dict[str, Any]]:
    x, w, _ = case.arrays("integers")
    return x, w, case.options()


def _round(works: list[tuple[Any, Any, dict[str, Any]]]) -> int:
    calls = 0
    for number, (x, w, options) in enumerate(works):
        y = fastconv.conv2d(x, w, **options)
        calls += 1
        if number % 4 == 0:
            fastconv.conv2d_backward(y, x, w, **options)
            calls += 1
    return calls


def _threads(count: int) -> None:
    """Threads one after the other, a few at a time, each with calls large enough for a team of its own."""
    x, w = np.ones((1, 32, 24, 24), np.float32), np.ones((32, 32, 3, 3), np.float32)

    def work() -> None:
        fastconv.conv2d(x, w, padding=1, num_threads=2)

    for _ in range(count // 4):
        group = [threading.Thread(target=work) for _ in range(4)]
        for thread in group:
            thread.start()
        for thread in group:
            thread.join()
