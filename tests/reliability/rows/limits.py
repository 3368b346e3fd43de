"""How many threads a call takes where something limits them, and the floating-point environment of those threads."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastconv
from fastconv import grad
from fastconv._core import threads
from reliability.board import Outcome, row
from reliability.rows.processes import calls
from reliability.rows.teams import openmp_region

# A control group: what lies in a root folder, and the whole CPUs that it grants.
GROUPS: list[tuple[str, dict[str, str], int | None]] = [
    ("none", {}, None),
    ("version 2, no limit", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
    ("version 2", {"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
    ("version 2, half a CPU", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
    ("version 2, 2.5 CPUs", {"sys/fs/cgroup/cpu.max": "250000 100000\n"}, 3),
    ("version 2, a group of the host", {
        "proc/self/cgroup": "0::/user.slice/a.service\n",
        "sys/fs/cgroup/user.slice/a.service/cpu.max": "300000 100000\n",
    }, 3),
    ("version 2, the tighter limit of two", {
        "proc/self/cgroup": "0::/b/a\n", "sys/fs/cgroup/b/a/cpu.max": "800000 100000\n",
        "sys/fs/cgroup/b/cpu.max": "400000 100000\n",
    }, 4),
    ("version 2, limited by what it lies in", {
        "proc/self/cgroup": "0::/b/a\n", "sys/fs/cgroup/b/a/cpu.max": "max 100000\n",
        "sys/fs/cgroup/b/cpu.max": "400000 100000\n",
    }, 4),
    ("version 1", {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }, 2),
    ("version 1, no limit", {
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    }, None),
    ("version 1, a group of the host", {
        "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n1:memory:/docker/y\n",
        "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_quota_us": "600000\n",
        "sys/fs/cgroup/cpu,cpuacct/docker/x/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/docker/y/cpu.cfs_quota_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/docker/y/cpu.cfs_period_us": "100000\n",
    }, 6),
    ("not numbers", {"sys/fs/cgroup/cpu.max": "many\n", "proc/self/cgroup": "0::/\n"}, None),
]  # fmt: skip
X, W = np.ones((4, 64, 40, 40), np.float32), np.ones((64, 64, 3, 3), np.float32)
COUNT_TEAM = """
import os, threading, numpy as np, fastconv
fastconv.conv2d(np.ones((4, 64, 40, 40), np.float32), np.ones((64, 64, 3, 3), np.float32))
print(fastconv.get_num_threads(), len(os.listdir("/proc/self/task")) - before)
"""


@row("default thread count respects affinity and the control group's quota; threadpoolctl sees and limits us",
     "shown", quick=1, full=1, order=240)  # fmt: skip
def thread_limits(count: int) -> Outcome:
    """Fake trees of control groups, processes held to fewer CPUs, threadpoolctl's limit and the operating system's
    count of the threads that calls started."""
    outcome = Outcome()
    for what, files, quota in GROUPS:
        with tempfile.TemporaryDirectory() as root:
            for name, text in files.items():
                path = Path(root, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            got = threads._cgroup_quota(root)
            outcome.check(got == quota, f"control group {what}: {got} CPUs, not {quota}")
    if hasattr(os, "sched_setaffinity") and Path("/proc/self/task").exists():
        cpus = sorted(os.sched_getaffinity(0))
        for held in (cpus[:1], cpus):
            got = _started(held, {})
            wanted = min(len(held), threads._cgroup_quota() or len(held))
            outcome.check(got == (wanted, wanted - 1), f"{len(held)} CPUs: {got}, not {(wanted, wanted - 1)}")
        got = _started(cpus, {"OMP_NUM_THREADS": "3"})
        outcome.check(got == (3, 2), f"OMP_NUM_THREADS=3: {got}")
    outcome.measured = _under_threadpoolctl(outcome)
    return outcome


def _started(cpus: list[int], environment: dict[str, str]) -> tuple[int, ...]:
    """What a process held to these CPUs takes for its number of threads, and the threads that its call started."""
    program = f"import os; os.sched_setaffinity(0, {cpus}); import numpy\nbefore = len(os.listdir('/proc/self/task'))\n"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "OPENBLAS_"))}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program + COUNT_TEAM], capture_output=True, text=True, env=clean | environment
    )
    return tuple(int(word) for word in done.stdout.split())


def _team(call: Callable[[], object]) -> int:
    """Threads that a fresh thread of Python adds to the process with this call, itself not counted."""
    sizes: list[int] = []

    def run() -> None:
        before = -1
        while before != (before := len(os.listdir("/proc/self/task"))):  # an earlier call's threads may still be ending
            time.sleep(0.05)
        call()
        sizes.append(len(os.listdir("/proc/self/task")) - before)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return sizes[0]


def _under_threadpoolctl(outcome: Outcome) -> str:
    try:
        import threadpoolctl
    except ImportError:
        return "threadpoolctl is not installed"
    seen = [pool["internal_api"] for pool in threadpoolctl.threadpool_info()]
    outcome.check("openmp" in seen, f"threadpoolctl sees {seen}")
    default = threads.effective(None)
    if default < 2 or not Path("/proc/self/task").exists():
        return "threadpoolctl sees the OpenMP runtime; with one thread there is nothing to limit"

    def limited() -> None:
        with threadpoolctl.threadpool_limits(1):
            fastconv.conv2d(X, W)

    sizes = _team(lambda: fastconv.conv2d(X, W)), _team(limited)
    outcome.check(sizes == (default - 1, 0), f"threads started without and with a limit of 1: {sizes}")
    with threadpoolctl.threadpool_limits(1):
        outcome.check(threads.effective(None) == 1, "threadpool_limits(1) leaves the number of threads")
        outcome.check(threads.effective(2) == 2, "threadpool_limits(1) wins over num_threads=2")
    outcome.check(threads.effective(None) == default, "the limit outlives its context")
    return f"threadpool_limits(1) takes a call from {default} threads to 1"


# ---- The floating-point environment --------------------------------------------------------------------------------

TEAM = 4
MXCSR_CONTROL = 0xFFC0  # all but the sticky exception flags, which arithmetic sets
FLUSH = 0x8040  # flush to zero, denormals are zero
UPWARD = 0x4000


def _environment() -> int | None:
    """The calling thread's MXCSR without its exception flags, on ARM FPCR; None elsewhere."""
    place = {"x86_64": 28, "AMD64": 28, "aarch64": 0, "arm64": 0}.get(platform.machine())
    if place is None:
        return None
    memory = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).fegetenv(memory)
    word = int.from_bytes(memory.raw[place : place + 4], "little")
    return word & MXCSR_CONTROL if place else word


def _set_environment(control: int) -> None:
    """Set the control part of MXCSR of the calling thread (x86-64)."""
    memory = ctypes.create_string_buffer(64)
    ctypes.CDLL(None).fegetenv(memory)
    word = int.from_bytes(memory.raw[28:32], "little") & ~MXCSR_CONTROL | control
    memory[28:32] = word.to_bytes(4, "little")  # type: ignore[assignment]
    ctypes.CDLL(None).fesetenv(memory)


@row("floating-point environment after import and calls, in every thread",
     "unchanged, subnormals computed", quick=2, full=40, order=250)  # fmt: skip
def floating_point_environment(count: int) -> Outcome:
    """The control word of the caller, of new threads and of OpenMP's, which the calls used; set by the caller too."""
    outcome = Outcome()
    before = _environment()
    if before is None:
        return Outcome(skipped=f"no reader of the floating-point environment of {platform.machine()}")
    outcome.check(before == (0x1F80 if platform.machine() in ("x86_64", "AMD64") else 0), f"after import: {before:#x}")
    for n in range(count):
        for index, call in enumerate(calls(n)):
            call()
            words = [_environment()]
            openmp_region(lambda words=words: words.append(_environment()), TEAM)  # type: ignore[misc]
            thread = threading.Thread(target=lambda words=words: words.append(_environment()))  # type: ignore[misc]
            thread.start()
            thread.join()
            outcome.check(set(words) == {before}, f"after call {index}: {words}, not {before}")
        if platform.machine() in ("x86_64", "AMD64"):
            for asked in (before | FLUSH, before | UPWARD):
                _set_environment(asked)
                try:
                    for call in calls(n):
                        call()
                    found = _environment()
                finally:
                    _set_environment(before)
                outcome.check(found == asked, f"the caller's own environment {asked:#x} became {found:#x}")
    _subnormals(outcome)
    return outcome


def _subnormals(outcome: Outcome) -> None:
    """Sums of subnormal numbers are exact: every algorithm that sums directly must return them."""
    for dtype in (np.float32, np.float64):
        tiny = np.finfo(dtype).smallest_subnormal
        for channels, groups in ((24, 1), (24, 24)):
            x = np.full((2, channels, 40, 40), 3 * tiny, dtype)
            w = np.ones((24, channels // groups, 3, 3), dtype)
            terms = 9 * channels // groups
            for team in (1, TEAM):
                options = {"groups": groups, "num_threads": team, "algorithm": "direct"}
                what = f"{np.dtype(dtype)}, {groups} groups, {team} threads"
                y = fastconv.conv2d(x, w, **options)
                outcome.check(bool((y == 3 * terms * tiny).all()), f"conv2d of subnormals, {what}")
                y = fastconv.conv2d(np.ones_like(x), w * tiny, **options)
                outcome.check(bool((y == terms * tiny).all()), f"conv2d with subnormal weights, {what}")
                dw = grad.conv2d_weight(x[:1], w.shape, np.ones((1, 24, 38, 38), dtype), **options)
                outcome.check(bool((dw == 3 * 38 * 38 * tiny).all()), f"weight gradient of subnormals, {what}")
