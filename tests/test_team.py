"""The team of threads (src/tasks.c): every task is done once, whoever comes, however many call at once."""

import multiprocessing
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
