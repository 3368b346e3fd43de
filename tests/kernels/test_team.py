"""The team of threads (src/tasks.c): every task is done once, whoever comes, however many call at once."""

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastconv


def arrays(seed):
    rng = np.random.default_rng(seed)
    size = 5 + seed % 23
    x = rng.integers(-3, 4, (1 + seed % 3, 4, size, size + 2)).astype(np.float32)
    return x, rng.integers(-2, 3, (8, 4, 3, 3)).astype(np.float32)


def convolve(seed, threads):
    return fastconv.conv2d(*arrays(seed), padding=1, algorithm="direct", num_threads=threads)


def test_many_callers_with_changing_numbers_of_threads():
    """More callers than teams have helpers for, and teams that grow and shrink from call to call."""
    expected = [convolve(seed, 1) for seed in range(40)]

    def caller(number):
        rng = np.random.default_rng(number)
        for _ in range(60):
            seed = int(rng.integers(40))
            assert np.array_equal(convolve(seed, int(rng.integers(1, 12))), expected[seed])

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(caller, range(20)))


def spin(stop):
    while not stop.is_set():
        sum(range(10_000))


def test_results_beside_busy_processes_are_the_same():
    """Threads are left out and come back there; bits must not tell."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 32, 40, 40), np.float32), rng.standard_normal((48, 32, 3, 3), np.float32)
    plan = fastconv.plan_conv2d(x.shape, w, padding=1, num_threads=4)
    expected = fastconv.plan_conv2d(x.shape, w, padding=1, num_threads=1).run(x)
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    neighbours = [context.Process(target=spin, args=(stop,), daemon=True) for _ in range(2)]
    for neighbour in neighbours:
        neighbour.start()
    try:
        for _ in range(150):
            assert np.array_equal(plan.run(x), expected)
    finally:
        stop.set()
        for neighbour in neighbours:
            neighbour.join(20)


@pytest.mark.parametrize("end", ["", "import os; os._exit(0)", "sys.exit(0)"])
def test_a_process_ends_while_helpers_wait(end):
    code = f"""
import sys, threading, numpy as np, fastconv
x, w = np.ones((1, 64, 30, 30), np.float32), np.ones((64, 64, 3, 3), np.float32)
def forever():
    while True: fastconv.conv2d(x, w, num_threads=4)
threading.Thread(target=forever, daemon=True).start()
for _ in range(20): fastconv.conv2d(x, w, num_threads=8)
{end}
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_helpers_compute_in_the_mode_of_their_caller():
    """Where another library has subnormal numbers flushed to zero, and switches that off again."""
    torch = pytest.importorskip("torch")
    x, w = np.full((4, 16, 32, 32), 1e-39, np.float32), np.ones((32, 16, 3, 3), np.float32)

    def zeros(threads):
        return np.count_nonzero(fastconv.conv2d(x, w, algorithm="direct", num_threads=threads).view(np.uint32) == 0)

    every = zeros(1)
    assert every == zeros(2) == 0
    try:
        assert torch.set_flush_denormal(True)
        flushed = {zeros(threads) for threads in (1, 2, 2, 8)}
    finally:
        torch.set_flush_denormal(False)
    assert len(flushed) == 1
    assert [zeros(threads) for threads in (1, 2, 8)] == [0, 0, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_fork_in_a_signal_handler_during_a_call():
    """The child has none of the threads that were computing: it says so, and computes anew."""
    code = """
import os, signal, time, numpy as np, fastconv
x, w, child = np.ones((16, 64, 112, 112), np.float32), np.ones((64, 64, 3, 3), np.float32), []
def fork(*_):
    if not child: child.append(os.fork())
signal.signal(signal.SIGALRM, fork)
signal.setitimer(signal.ITIMER_REAL, 0.1)
told = ""
while not child:
    try: y = fastconv.conv2d(x, w, algorithm="direct", num_threads=2)
    except RuntimeError as error: told = str(error)
if child[0] == 0:
    right = fastconv.conv2d(x[:1], w, algorithm="direct")[0, 0, 1, 1] == 576
    os._exit(0 if right and (not told or "forked" in told) else 1)
for _ in range(400):
    done, status = os.waitpid(child[0], os.WNOHANG)
    if done: break
    time.sleep(0.1)
else:
    os.kill(child[0], 9)
    raise SystemExit("the child hangs")
assert status == 0 and (y == 576).any(), status
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr


def test_a_thread_that_ends_leaves_its_team_to_others():
    """Callers come and go: a team belongs to none of them."""
    expected = convolve(7, 1)
    before = threading.active_count()
    for _ in range(40):
        found = []
        thread = threading.Thread(target=lambda found=found: found.append(convolve(7, 3)))
        thread.start()
        thread.join()
        assert np.array_equal(found[0], expected)
    assert threading.active_count() == before
