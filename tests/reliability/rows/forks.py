"""Children forked beside threads that are at work, and processes that the system gives no room for threads."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import fastconv
from reliability.board import Outcome, row

TESTS = Path(__file__).resolve().parents[2]
PATIENCE = 600.0
WHAT = ("predict", "predict_with_a_bar", "fit", "run", "accelerated", "functions")
# kind, margin, threads of a call, Python threads that call at once
ROOMS = [
    ("memory", 2, 4, 1), ("threads", 3, 6, 4), ("memory", 70, 6, 4), ("threads", 1, 4, 1), ("memory", 40, 4, 2),
    ("memory", 55, 64, 1), ("memory", 100, 8, 4), ("memory", 200, 8, 4), ("memory", 600, 64, 2),
    ("memory", 3000, 64, 4), ("threads", 2, 4, 1), ("threads", 5, 8, 4), ("threads", 9, 8, 4), ("threads", 16, 8, 4),
    ("threads", 60, 16, 4),
]  # fmt: skip


def program(name: str, *arguments: object) -> tuple[int | str, str]:
    """How a program of the tests ends in a process of its own, and the last of what it prints."""
    paths = [str(Path(fastconv.__file__).parents[1]), str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", str(TESTS / name), *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return "hung", ""
    return done.returncode, (done.stdout or done.stderr).strip()


@row("forks beside four threads in the same: predict, training, ONNX, the bridge, calls", "50 children each, "
     "0 hangs, the same bits", quick=5, full=50, order=201)  # fmt: skip
def forks_beside_threads(count: int) -> Outcome:
    """By os.fork, multiprocessing, from a thread, and with a grandchild; the parent goes on. tests/forked.py."""
    outcome = Outcome()
    missing = [] if importlib.util.find_spec("torch") else ["accelerated"]
    for what in WHAT:
        if what in missing:
            continue
        code, printed = program("forked.py", what, count)
        *failures, last = printed.splitlines() or [""]
        outcome.cases += count
        for failure in failures:
            outcome.fail(f"{what}: {failure}")
        outcome.check(code == 0 and last == f"{count} children, {len(failures)} failures", f"{what}: {code} {last}")
    outcome.measured = f"{count} children each" + (", without PyTorch" if missing else "")
    return outcome


@row("processes with no room for threads: address space, processes of the user", "values, MemoryError or RuntimeError",
     quick=3, full=len(ROOMS), order=202)  # fmt: skip
def no_room_for_threads(count: int) -> Outcome:
    """All entry points, from several Python threads at once. tests/no_room.py."""
    outcome = Outcome()
    for room in ROOMS[:count]:
        code, printed = program("no_room.py", *room)
        kind, margin, team, callers = room
        what = f"{kind} for {margin}, {team} threads a call, {callers} callers: {code} {printed}"
        outcome.check(code == 0 and "right" in printed and "wrong" not in printed, what)
        # with room for the arrays and for no thread, everything is computed
        outcome.check((kind == "memory" and margin < 40) or "Error" not in printed, what)
    return outcome
