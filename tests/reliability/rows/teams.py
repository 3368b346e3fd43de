"""Many callers at once: threads of Python that share arrays and plans, other libraries' pools and OpenMP regions around
calls, and calls while the interpreter shuts down."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable

import numpy as np

import fastconv
from fastconv import grad
from fastconv.testing.problems import conv_cases
from reliability.board import Outcome, row
from reliability.rows.processes import bits, calls, work

THREADS = 16
CALLS = 50_000  # that the full tier must reach
PATIENCE = 60.0


def openmp_region(body: Callable[[], None], threads: int) -> bool:
    """Run `body` on every thread of a region of GNU OpenMP's, as a program around fastconv may; False without one."""
    if "libgomp" not in fastconv.info()["openmp"]:
        return False
    callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: body())
    ctypes.CDLL("libgomp.so.1").GOMP_parallel(callback, None, ctypes.c_uint(threads), ctypes.c_uint(0))
    return True


Job = tuple[str, Callable[[int], np.ndarray]]  # what, and the call on so many threads


def _jobs() -> list[Job]:
    """Calls of random shapes that share their arrays; the last ones are large enough to be shared out."""
    jobs: list[Job] = []
    for case in [c for c in conv_cases(150) if c.is_float][:60]:
        x, w, b = case.arrays("reals")
        options = case.options()
        dy = np.ones_like(fastconv.conv2d(x, w, b, **options), dtype=x.dtype)
        jobs.append((f"conv2d of {case}", lambda t, x=x, w=w, b=b, options=options: fastconv.conv2d(
            x, w, b, **options, num_threads=t)))  # type: ignore[misc]
        jobs.append((f"weight gradient of {case}", lambda t, dy=dy, x=x, w=w, options=options: fastconv.conv2d_backward(
            dy, x, w, **options, num_threads=t)[1]))  # type: ignore[misc]
    rng = np.random.default_rng(0)
    weight = rng.uniform(-1, 1, (40, 24, 3, 3)).astype(np.float32)
    for size in (9, 16, 23):
        x = rng.uniform(-1, 1, (2, 24, size, size)).astype(np.float32)
        dy = rng.uniform(-1, 1, (2, 40, size, size)).astype(np.float32)
        for algorithm in ("direct", "winograd"):
            plan = fastconv.plan_conv2d(x.shape, weight, padding=1, algorithm=algorithm, num_threads=3)
            name = f"{algorithm} of {size} x {size}"
            jobs.append((f"plan, {name}", lambda t, plan=plan, x=x: plan.run(x)))  # type: ignore[misc]
            jobs.append((f"input gradient, {name}", lambda t, x=x, dy=dy, a=algorithm: grad.conv2d_input(
                x.shape, weight, dy, padding=1, algorithm=a, num_threads=t)))  # type: ignore[misc]
            jobs.append((f"weight gradient, {name}", lambda t, x=x, dy=dy, a=algorithm: grad.conv2d_weight(
                x, weight.shape, dy, padding=1, algorithm=a, num_threads=t)))  # type: ignore[misc]
    return jobs


@row("16 Python threads x 60 s sharing weights and plans, random shapes, 1 to 4 threads a call",
     "≥ 50,000 calls, 0 differences, no hang", quick=3, full=60, order=220)  # fmt: skip
def python_threads(seconds: int) -> Outcome:
    """The interpreter switches threads every microsecond. Each call's bytes equal those of the same call made alone."""
    outcome = Outcome()
    jobs = _jobs()
    expected = [np.ascontiguousarray(call(1)).tobytes() for _, call in jobs]
    counts = [0] * THREADS
    wrong: list[str] = []
    stop = threading.Event()

    def hammer(thread: int) -> None:
        rng = np.random.default_rng(thread)
        while not stop.is_set():
            index = int(rng.integers(len(jobs)))
            what, call = jobs[index]
            threads = 1 + int(rng.integers(4))
            if np.ascontiguousarray(call(threads)).tobytes() != expected[index]:
                wrong.append(f"{what} on {threads} threads")
            counts[thread] += 1

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    team = [threading.Thread(target=hammer, args=(n,), daemon=True) for n in range(THREADS)]
    try:
        for thread in team:
            thread.start()
        time.sleep(seconds)
        stop.set()
        for thread in team:
            thread.join(PATIENCE)
    finally:
        sys.setswitchinterval(before)
    outcome.cases = sum(counts)
    for what in wrong:
        outcome.fail(what)
    outcome.check(not any(thread.is_alive() for thread in team), "a thread never came back")
    outcome.check(min(counts) > 0, "a thread got no call done")
    if seconds >= 60:
        outcome.check(sum(counts) >= CALLS, f"only {sum(counts):,} calls in {seconds} s")
    outcome.measured = f"{sum(counts):,} calls in {seconds} s"
    return outcome


@row("calls inside joblib's threads and processes, dask's threads, an OpenMP region; from atexit and a daemon thread",
     "the same bits, no hang", quick=1, full=5, order=230)  # fmt: skip
def nested(count: int) -> Outcome:
    """Each `count` times; a library that is not installed is left out, and named."""
    outcome = Outcome()
    expected = [work(seed) for seed in range(4)]
    missing = [name for name in ("joblib", "dask") if importlib.util.find_spec(name) is None]
    for n in range(count):
        if "joblib" not in missing:
            import joblib

            for backend in ("threading", "loky", "multiprocessing"):
                parallel = joblib.Parallel(n_jobs=2, backend=backend, timeout=PATIENCE)
                got = parallel(joblib.delayed(work)(seed) for seed in range(4))
                outcome.check(got == expected, f"joblib, {backend}, {n}")
        if "dask" not in missing:
            import dask

            got = list(dask.compute(*[dask.delayed(work)(seed) for seed in range(4)], scheduler="threads"))
            outcome.check(got == expected, f"dask, {n}")
        inside: list[str] = []
        if openmp_region(lambda inside=inside: inside.append(work(0)), 3):  # type: ignore[misc]
            outcome.check(inside == [expected[0]] * 3, f"an OpenMP region of 3 threads, {n}")
        for what, code in SHUTDOWN.items():
            outcome.check(_ends_well(code), f"{what}, {n}")
    outcome.check(bits(calls()) == work(0), "the calls afterwards")
    outcome.measured = f"without {', '.join(missing)}" if missing else ""
    return outcome


# Whole programs. Each prints what it computed last.
SHUTDOWN = {
    "a call from atexit": """
        import atexit
        x, w = np.ones((2, 32, 32, 32), np.float32), np.ones((32, 32, 3, 3), np.float32)
        fastconv.conv2d(x, w, num_threads=4)
        def last():
            y = fastconv.conv2d(x, w, num_threads=4, algorithm="direct")
            print(y.sum() == 2 * 32 * 30 * 30 * 288, flush=True)
        atexit.register(last)
    """,
    "a daemon thread that convolves at shutdown": """
        import threading, time
        x, w = np.ones((8, 64, 64, 64), np.float32), np.ones((64, 64, 3, 3), np.float32)
        def forever():
            while True:
                fastconv.conv2d(x, w, num_threads=2)
        for _ in range(3):
            threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.3)
        print(fastconv.conv2d(x, w, algorithm="direct")[0, 0, 0, 0] == 576, flush=True)
    """,
}


def _ends_well(code: str) -> bool:
    program = "import numpy as np, fastconv\n" + textwrap.dedent(code)
    try:
        done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and done.stdout.strip() == "True" and not done.stderr
