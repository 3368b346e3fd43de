"""One library and one net in a process of its own, which a parent tells when to run.

    python -m fastconv.bench.worker RUNTIME VARIANT FOLDER THREADS

FOLDER holds net.onnx and x.npy, and answer.npy unless RUNTIME is the one that makes it. The first line that comes back
says what loading and the first run took; then each line that is read asks for a turn: {"seconds": 0.1}.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from .measure import rest
from .memory import STATUS, resident
from .peers import NotOffered
from .runtimes import ANSWER, FLOAT32, RUNTIMES, Job, holding

WARM_SECONDS: Final = 0.02  # dropped at the start of a turn
MOST_CALLS: Final = 1000
CLEAR_PEAK: Final = Path("/proc/self/clear_refs")


def turn(run: Callable[[], Any], seconds: float) -> list[float]:
    """Times of calls back to back, the first ones dropped; at least one, however slow."""
    clock = time.perf_counter
    gc.disable()
    try:
        begin = clock()
        run()
        while clock() < begin + WARM_SECONDS:
            run()
        samples: list[float] = []
        end = clock() + seconds
        while not samples or (clock() < end and len(samples) < MOST_CALLS):
            before = clock()
            run()
            samples.append(clock() - before)
    finally:
        gc.enable()
    return samples


def error_by_column(result: np.ndarray, answer: np.ndarray, axis: int | None) -> float:
    """max |result - answer| / max |answer|; where an axis is of columns of different scales, of the worst column."""
    if result.shape != answer.shape:
        return math.inf
    axes = None if axis is None else tuple(i for i in range(answer.ndim) if i != axis)
    difference = np.abs(result.astype(np.float64) - answer).max(axis=axes)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = difference / np.abs(answer.astype(np.float64)).max(axis=axes)
    error = float(np.max(np.where(difference == 0, 0, shares), initial=0))
    return error if math.isfinite(error) else math.inf


def error_of_norms(result: np.ndarray, answer: np.ndarray) -> float:
    """|result - answer| / |answer|, Euclidean norms."""
    if result.shape != answer.shape:
        return math.inf
    wanted = answer.astype(np.float64)
    off = float(np.linalg.norm(result - wanted))
    with np.errstate(divide="ignore", invalid="ignore"):
        error = float(np.divide(off, np.linalg.norm(wanted))) if off else 0.0
    return error if math.isfinite(error) else math.inf


def error_of(result: np.ndarray, answer: np.ndarray, precision: str, columns: int | None) -> float:
    """How far a result is off, as a share. In fewer bits, of the norms: in a net of random weights, one rounding that
    falls the other way moves single values by any amount, and many of them the whole but little."""
    return error_by_column(result, answer, columns) if precision == FLOAT32 else error_of_norms(result, answer)


def started(name: str, variant: str, folder: Path, threads: int) -> tuple[Callable[[], Any], dict[str, Any]]:
    """The call to time, and what getting there took; the imports and conversions before are not counted."""
    options = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    job = Job(str(folder / "net.onnx"), np.load(folder / "x.npy"), threads, options.get("precision", FLOAT32))
    load = RUNTIMES[name].prepare(job, variant)
    gc.collect()
    told = STATUS.exists() and CLEAR_PEAK.exists()
    base = resident("VmRSS") if told else None
    if told:
        CLEAR_PEAK.write_text("5", encoding="ascii")
    begin = time.perf_counter()
    call = load()
    loaded = time.perf_counter()
    result = call.run()
    first = time.perf_counter()
    peak = resident("VmHWM") if told else None
    y = call.read(result)
    if name == ANSWER:
        np.save(folder / "answer.npy", y)
    error = error_of(y, np.load(folder / "answer.npy"), job.precision, options.get("columns"))
    return call.run, {
        "load": loaded - begin, "first": first - loaded, "base": base, "peak": peak,
        "error": error if math.isfinite(error) else None,
    }  # fmt: skip


def main(name: str, variant: str, folder: str, threads: str) -> int:
    # What libraries print must not come between our lines.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    with holding([name], int(threads)):
        try:
            run, told = started(name, variant, Path(folder), int(threads))
        except NotOffered as reason:
            return _say(replies, {"absent": str(reason)})
        except ImportError as error:
            return _say(replies, {"absent": f"{error.name} is not installed" if error.name else str(error)})
        except Exception as error:  # whatever a library raises: it is named, and the others go on
            text = f"failed: {type(error).__name__}: {error}".strip().splitlines()[0]
            return _say(replies, {"absent": text[:160]})
        rest()
        _say(replies, told)
        for line in sys.stdin:
            before = time.process_time()
            samples = turn(run, json.loads(line)["seconds"])
            rest()  # a pool that goes on spinning is not to meet whoever comes next
            _say(replies, {"samples": samples, "cpu": time.process_time() - before})
    return 0


def _say(replies: TextIO, content: dict[str, Any]) -> int:
    print(json.dumps(content), file=replies, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
