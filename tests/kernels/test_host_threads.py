"""Work on another library's threads, as under PyTorch: here on those of the OpenMP that the module is linked to."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import fastconv
from fastconv import _native

MAPS = Path("/proc/self/maps")


NAMES = ("GOMP_parallel", "omp_get_thread_num", "omp_in_parallel", "omp_get_max_threads")


def put_on(library: ctypes.CDLL) -> None:
    _native.use_threads_of(*(ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in NAMES))


@pytest.fixture
def host() -> Iterator[ctypes.CDLL]:
    lines = MAPS.read_text().splitlines() if MAPS.exists() else []
    paths = {line.split()[-1] for line in lines if "/libgomp" in line}
    if not paths:
        pytest.skip("no OpenMP of GNU's is loaded")
    library = ctypes.CDLL(min(paths))
    put_on(library)
    yield library
    _native.use_threads_of(0, 0, 0, 0)


def results() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    found = []
    for dtype in ("float32", "float64"):
        x, w = rng.normal(size=(3, 32, 40, 41)).astype(dtype), rng.normal(size=(48, 32, 3, 3)).astype(dtype)
        dy = rng.normal(size=(3, 48, 40, 41)).astype(dtype)
        found += [fastconv.conv2d(x, w, padding=1, num_threads=3)]
        found += list(fastconv.conv2d_backward(dy, x, w, padding=1, num_threads=3))
        found += [fastconv.max_pool2d(x, 2), fastconv.conv2d(x, w[:32, :1], padding=1, groups=32, num_threads=2)]
    return found


def test_bits_are_those_of_our_own_threads(host: ctypes.CDLL) -> None:
    on_host = results()
    _native.use_threads_of(0, 0, 0, 0)
    for ours, theirs in zip(results(), on_host, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_computes_alone(host: ctypes.CDLL) -> None:
    before = results()[0]
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(results()[0], before) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
def test_signals_are_looked_for_meanwhile(host: ctypes.CDLL) -> None:
    """Handlers of a timer run while a call goes on, and not once at its end."""
    x, w = np.ones((8, 128, 112, 112), np.float32), np.ones((128, 128, 3, 3), np.float32)
    seen: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        fastconv.conv2d(x, w, padding=1, algorithm="direct", num_threads=2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(seen) >= 2


def tasks() -> set[str]:
    """The threads of this process."""
    return set(os.listdir("/proc/self/task"))


def convolve(threads: int) -> np.ndarray:
    x, w = np.ones((4, 16, 40, 40), np.float32), np.ones((64, 16, 3, 3), np.float32)
    return fastconv.conv2d(x, w, algorithm="direct", num_threads=threads)


def test_a_small_job_leaves_the_team_as_it_is(host: ctypes.CDLL) -> None:
    """GNU's OpenMP ends the threads that a smaller region has no use for, and starts others for the next one."""
    usual = host.omp_get_max_threads()
    host.omp_set_num_threads(4)
    try:
        convolve(4)
        team = tasks()
        convolve(2)
        convolve(4)
        assert tasks() == team
    finally:
        host.omp_set_num_threads(usual)
    convolve(5)  # more than its usual team
    assert len(tasks()) > len(team)


IN_A_REGION = """
import ctypes, sys
sys.path.insert(0, sys.argv[2])
import test_host_threads as own
library = ctypes.CDLL(sys.argv[1])
own.put_on(library)
expected, before, got = own.convolve(1), len(own.tasks()), []
body = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: got.append(own.convolve(2)))
library.GOMP_parallel(body, None, ctypes.c_uint(2), ctypes.c_uint(0))
assert len(got) == 2 and all((one == expected).all() for one in got)
assert len(own.tasks()) == before + 1, (own.tasks(), before)
"""


def test_within_a_region_of_the_host_each_thread_computes_alone(host: ctypes.CDLL, tmp_path: Path) -> None:
    """Of another OpenMP than ours, as PyTorch brings one along."""
    copy = shutil.copy(host._name, tmp_path / "libgomp-other.so")
    done = subprocess.run(
        [sys.executable, "-P", "-c", IN_A_REGION, copy, Path(__file__).parent], capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
