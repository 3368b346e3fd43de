"""Processes made from one that has convolved: forked after and during calls, and the workers of multiprocessing."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

import fastconv
from fastconv import grad
from fastconv.layers.rows import channel_sums
from reliability.board import Outcome, row

PATIENCE = 30.0  # seconds after which a child is taken for hung; it needs a tenth of one
METHODS = ("fork", "forkserver", "spawn")


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Large enough that a call shares its work among threads."""
    rng = np.random.default_rng(seed)
    x, w, dy = ((2, 40, 24, 24), (50, 40, 3, 3), (2, 50, 24, 24))
    return tuple(rng.uniform(-1, 1, shape).astype(np.float32) for shape in (x, w, dy))  # type: ignore[return-value]


def calls(seed: int = 0) -> list[Callable[[], object]]:
    """A call of every driver, on four threads where it may choose."""
    x, w, dy = problem(seed)
    depthwise = w[:40, :1]
    options = {"padding": 1, "num_threads": 4}
    return [
        lambda: fastconv.conv2d(x, w, algorithm="direct", **options),
        lambda: fastconv.conv2d(x, w, algorithm="winograd", **options),
        lambda: fastconv.conv2d(x, depthwise, groups=40, **options),
        lambda: grad.conv2d_input(x.shape, w, dy, **options),
        lambda: grad.conv2d_weight(x, w.shape, dy, algorithm="direct", **options),
        lambda: grad.conv2d_weight(x, w.shape, dy, algorithm="winograd", **options),
        lambda: fastconv.conv2d_backward(dy, x, w, output_mask=(False, False, True), **options)[2],
        lambda: fastconv.max_pool2d(x, 3, 2, 1),
        lambda: grad.avg_pool2d_input(x.shape, 2, dy[:, :40, :12, :12]),
        lambda: channel_sums(np.broadcast_to(x, (3, *x.shape)).reshape(-1, 24)),
    ]


def bits(of: list[Callable[[], object]]) -> str:
    """One hash of all results."""
    digest = hashlib.sha256()
    for call in of:
        digest.update(np.ascontiguousarray(call()).tobytes())
    return digest.hexdigest()


def work(seed: int) -> str:
    """What a worker of multiprocessing does."""
    return bits(calls(seed))


@row("fork after use, fork during calls, multiprocessing fork, forkserver, spawn", "50 each, 0 hangs, the same bits",
     quick=3, full=50, order=200)  # fmt: skip
def new_processes(count: int) -> Outcome:
    """Every child runs each driver, with plans made before the fork, and both sides go on computing afterwards."""
    outcome = Outcome()
    x, w, _ = problem()
    plans = [fastconv.plan_conv2d(x.shape, w, padding=1, num_threads=4, algorithm=a) for a in ("direct", "winograd")]
    ours = [*calls(), *(lambda plan=plan: plan.run(x) for plan in plans)]  # type: ignore[misc]
    expected = bits(ours)
    for n in range(count):
        _forked(outcome, ours, expected, f"fork {n} after use")
        outcome.check(bits(ours) == expected, f"the parent after fork {n}")
    with _busy_threads():
        for n in range(count):
            _forked(outcome, ours, expected, f"fork {n} during calls")
            time.sleep(0.003 * (n % 7))  # at other moments of the calls
    outcome.check(bits(ours) == expected, "the parent after forks during calls")
    for method in METHODS:
        wanted = [work(seed) for seed in range(count)]
        for seed in range(count):
            _worker(outcome, method, seed, wanted[seed])
    outcome.measured = f"{count} forks after use, {count} during calls, {count} workers of each of {', '.join(METHODS)}"
    return outcome


def _forked(outcome: Outcome, of: list[Callable[[], object]], expected: str, what: str) -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if bits(of) == expected else 2
        finally:
            os._exit(code)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            outcome.check(code == 0, f"{what}: " + ("other bits" if code == 2 else f"ended with {code}"))
            return
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    outcome.check(False, f"{what}: hung")


@contextmanager
def _busy_threads(count: int = 3) -> Iterator[None]:
    """Threads of Python that are inside a call nearly all the time."""
    stop = threading.Event()

    def convolve(seed: int) -> None:
        of = calls(seed)
        while not stop.is_set():
            bits(of)

    threads = [threading.Thread(target=convolve, args=(seed,), daemon=True) for seed in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
            if thread.is_alive():
                raise RuntimeError("a thread that was convolving during the forks never came back")


def _worker(outcome: Outcome, method: str, seed: int, expected: str) -> None:
    with multiprocessing.get_context(method).Pool(1) as pool:
        try:
            got = pool.map_async(work, [seed]).get(timeout=PATIENCE)
        except multiprocessing.TimeoutError:
            outcome.check(False, f"{method} worker {seed}: hung")
            return
    outcome.check(got == [expected], f"{method} worker {seed}: other bits")
