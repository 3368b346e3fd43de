"""Runs cases through everyone who offers them and collects what came out."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

import numpy as np

from .. import _native
from .._core.machine import cpu_name
from ..functional import info
from .cases import Case, make_data
from .layer_sets import SETS
from .measure import Candidate, check, rest, time_interleaved
from .peers import NotOffered, Ours, Peer, holding, logical_reference
from .report import Report, Row, Timing

# Variables that change how fast somebody is; a results file records those that were set.
SPEED_VARIABLES: Final = (
    "FASTCONV_ISA", "ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_PROC_BIND",
)  # fmt: skip
COPIED_BYTES: Final = 1 << 26


def select(sets: Sequence[str], only: str | None = None, held_out: bool | None = None) -> list[Case]:
    """The cases of the sets whose name or family holds the text `only`, of one side or (None) of both."""
    cases = [case for name in sets for case in SETS[name] if held_out in (None, case.held_out)]
    return [case for case in cases if only is None or only in case.name or only in case.family]


def run_case(
    case: Case, pass_name: str, ours: Ours, peers: Sequence[Peer], rounds: int, seconds: float | None = None
) -> Row:
    """Check everybody's answer against the reference, then time them beside each other."""
    with holding(peers):
        return _run_case(case, pass_name, ours, peers, rounds, seconds)


def _run_case(
    case: Case, pass_name: str, ours: Ours, peers: Sequence[Peer], rounds: int, seconds: float | None
) -> Row:
    data = make_data(case)
    answer = logical_reference(case, data, pass_name)
    candidates = ours.candidates(case, data, pass_name)
    check(candidates[0], answer, case.dtype)

    def offered(peer: Peer) -> list[Candidate]:
        made = peer.candidates(case, data, pass_name)
        for candidate in made:
            check(candidate, answer, case.dtype)
        return made

    absent = collect((peer for peer in peers if pass_name in peer.passes), offered, candidates)
    return timed_row(
        candidates, absent, ours.threads, rounds, seconds, case.dtype, set=case.set, layer=case.name,
        family=case.family, pass_name=pass_name, counted=case.counted, count=case.count, macs=case.macs,
        shape=case.describe(), held_out=case.held_out,
    )  # fmt: skip


def collect(
    peers: Iterable[Peer], offered: Callable[[Peer], Sequence[Candidate]], candidates: list[Candidate]
) -> dict[str, str]:
    """Add what the peers offer to `candidates`; why each of the others is absent."""
    absent: dict[str, str] = {}
    for peer in peers:
        try:
            made = offered(peer)
        except NotOffered as reason:
            absent[peer.name] = str(reason)
        except Exception as error:  # whatever another library raises: it is named, and the others go on
            absent[peer.name] = f"failed: {type(error).__name__}: {error}".splitlines()[0]
        else:
            candidates += made
    return absent


def timed_row(
    candidates: list[Candidate], absent: dict[str, str], threads: int, rounds: int, seconds: float | None, dtype: str,
    **described: Any,
) -> Row:  # fmt: skip
    """Time checked candidates beside each other; `described` says of what the row is."""
    peak = fma_peak(threads, dtype)
    before = processor_seconds()
    time_interleaved(candidates, rounds, seconds)
    outside = outside_share(before, processor_seconds())
    peak = max(peak, fma_peak(threads, dtype))  # the clock may have changed meanwhile
    return Row(
        peak_gflops=peak, timings=[_timing(candidate) for candidate in candidates], absent=absent, outside=outside,
        **described,
    )  # fmt: skip


@dataclass(frozen=True)
class ProcessorSeconds:
    """Processor time since some moment: of all cores, of them busy or taken by the host, and of this process."""

    all: float
    busy: float
    own: float


def processor_seconds() -> ProcessorSeconds | None:
    """The system's counters; None where it has none."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            user, nice, system, idle, waiting, *interrupts_and_stolen = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    busy = user + nice + system + sum(interrupts_and_stolen)
    tick = os.sysconf("SC_CLK_TCK")
    times = os.times()
    return ProcessorSeconds((busy + idle + waiting) / tick, busy / tick, times.user + times.system)


def outside_share(before: ProcessorSeconds | None, after: ProcessorSeconds | None) -> float | None:
    """The share of the machine that other processes had between two readings; None if that is not known."""
    if before is None or after is None or after.all <= before.all:
        return None
    others = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, others) / (after.all - before.all)


def fma_peak(threads: int, dtype: str = "float32") -> float:
    """GFLOP/s of fused multiply-adds in registers: the best of three runs, undisturbed; half of it in float64."""
    rest()
    return max(_native.fma_peak(threads) for _ in range(3)) / (2 if dtype == "float64" else 1)


def copy_speed(threads: int) -> float:
    """GB/s read and written by copying arrays that no cache holds, each thread its own part: the best of five."""
    source, target = np.ones(COPIED_BYTES, np.uint8), np.zeros(COPIED_BYTES, np.uint8)
    edges = [COPIED_BYTES * part // threads for part in range(threads + 1)]
    best = math.inf
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            start = time.perf_counter()
            jobs = [pool.submit(np.copyto, target[a:b], source[a:b]) for a, b in pairwise(edges)]
            for job in jobs:
                job.result()
            best = min(best, time.perf_counter() - start)
    return 2e-9 * COPIED_BYTES / best


def _timing(candidate: Candidate) -> Timing:
    return Timing(
        candidate.peer, candidate.variant, candidate.median, min(candidate.samples), len(candidate.samples),
        candidate.error, candidate.correct, candidate.note,
    )  # fmt: skip


def new_report(ours: Ours, peers: Sequence[Peer], missing: dict[str, str], timing: dict[str, Any]) -> Report:
    """A report without rows: who runs where and when."""
    return Report(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        machine={"cpu": cpu_name(), "cores": os.cpu_count(), "system": f"{platform.system()} {platform.machine()}"},
        fastconv={key: value for key, value in info().items() if key != "threads"},
        threads=ours.threads,
        layout=ours.layout,
        python=platform.python_version(),
        versions={peer.name: peer.version() for peer in peers},
        missing=missing,
        environment={name: os.environ[name] for name in SPEED_VARIABLES if name in os.environ},
        timing=timing,
    )
