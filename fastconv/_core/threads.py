"""How many threads a call may use: the process-wide cap, one call's wish, and what the machine grants."""

from __future__ import annotations

import operator
import os
import re
from functools import lru_cache

from .. import _native
from ..errors import ConvError, ConvTypeError
from . import forks

_cap: int | None = None
_openmp = _native.openmp_threads()  # before anyone limited it
MOST = 1 << 16  # that may be asked for
FREELY = 64  # threads that a call may have anywhere; more only where there are as many CPUs
LARGEST_WISH = (1 << 31) - 1  # what OpenMP takes for a number of threads


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _cgroup_folders(root: str) -> list[str]:
    """The folders of this process's control groups of either version and of all that these lie in.

    In a container the paths are those of the host, and the group itself is mounted as the root, which is in every list.
    """
    folders = [f"{root}/sys/fs/cgroup", f"{root}/sys/fs/cgroup/cpu", f"{root}/sys/fs/cgroup/cpu,cpuacct"]
    try:
        lines = _read(f"{root}/proc/self/cgroup").splitlines()
    except (OSError, ValueError):
        return folders
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        while path.strip("/"):
            folders += [mount + path for mount in (folders[1:3] if controllers else folders[:1])]
            path = path.rpartition("/")[0]
    return folders


def _cgroup_quota(root: str = "") -> int | None:
    """Whole CPUs granted by the tightest bandwidth limit of the control groups, version 2 and 1, None without one."""
    quotas = []
    for folder in _cgroup_folders(root):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
            try:
                quota, period = " ".join(_read(f"{folder}/{name}") for name in names).split()
                if int(quota) > 0 and int(period) > 0:  # "max" and -1: no limit
                    quotas.append(-(-int(quota) // int(period)))
            except (OSError, ValueError):
                continue
    return min(quotas, default=None)


def _wish() -> int | None:
    """The first number of OMP_NUM_THREADS; None if it is no list of positive numbers, which OpenMP ignores too."""
    text = os.environ.get("OMP_NUM_THREADS", "")
    if not re.fullmatch(r"\s*\+?[0-9]{1,18}\s*(,\s*\+?[0-9]{1,18}\s*)*", text, re.ASCII):
        return None
    numbers = [int(number) for number in text.split(",")]
    return numbers[0] if min(numbers) > 0 and max(numbers) <= LARGEST_WISH else None


def _cpus() -> int:
    """CPUs of the affinity mask, or of the machine where there is no such mask."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


@lru_cache(maxsize=1)
def _most() -> int:
    """Threads of a call, whatever is asked for: each costs memory, and those without a CPU only wait for one."""
    return max(FREELY, _cpus())


def _default() -> int:
    """OMP_NUM_THREADS if set, else the CPUs of the affinity mask within the control group's quota."""
    return min(_wish() or min(_cpus(), _cgroup_quota() or MOST), MOST)


def explain() -> dict[str, int | bool | str | None]:
    """The threads of a call and all that has a say in their number; `why` names what decided."""
    threads, wish, cpus, quota = effective(None), _wish(), _cpus(), _cgroup_quota()
    room = _native.room_for_threads()
    if forks.forked:
        why = "a forked child computes on its own thread"
    elif room < threads:
        threads, why = room, "the system refused to start more: its memory, processes or threads are limited"
    elif threads < min(get_num_threads(), _most()):
        why = "OpenMP's limit, as threadpoolctl sets it"
    elif threads != min(_default(), _most()):
        why = "set_num_threads"
    elif wish:
        why = "OMP_NUM_THREADS"
    elif quota and quota < cpus:
        why = "the control group's CPU quota"
    else:
        why = "the CPUs that this process may run on"
    return {
        "threads": threads,
        "why": why,
        "cpus": os.cpu_count(),
        "affinity": cpus,
        "cgroup_quota": quota,
        "omp_num_threads": wish,
    }


def _positive(name: str, value: object) -> int:
    if isinstance(value, bool):
        raise ConvTypeError(f"{name} must be a positive integer, but got the bool {value!r}; give a number of threads.")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise ConvTypeError(
            f"{name} must be a positive integer, but got {value!r} of type {type(value).__name__}."
        ) from None
    if not 1 <= number <= MOST:
        raise ConvError(f"{name} must be between 1 and 65536, but got {number}; give a positive number of threads.")
    return number


def set_num_threads(n: int) -> None:
    """Cap the threads of every later call in this process.

    However many are asked for, here or with ``num_threads=``, a call has no more than 64, or than the CPUs that the
    process may use where these are more, and no more than its work has parts.

    Parameters
    ----------
    n : int
        At least 1 and at most 65536.

    Raises
    ------
    ConvError
        For a number out of range.
    ConvTypeError
        For what is no integer.
    """
    global _cap
    _cap = _positive("n", n)


def get_num_threads() -> int:
    """Threads that a call uses unless ``num_threads=`` says otherwise.

    Returns
    -------
    int
        The cap that was set; else OMP_NUM_THREADS, or the CPUs that this process may use, within its control group's
        quota.
    """
    global _cap
    if _cap is None:
        _cap = _default()
    return _cap


def effective(num_threads: int | None) -> int:
    """Threads for one call: `num_threads` if given, else the cap; one in a forked child.

    The cap yields to a limit that was set on OpenMP in the calling thread, as threadpoolctl does.
    """
    if num_threads is None:
        wanted, limit = _cap or get_num_threads(), _native.openmp_threads()
        if limit < _openmp:
            wanted = min(wanted, limit)
    else:
        wanted = _positive("num_threads", num_threads)
    if forks.forked:
        return 1
    return wanted if wanted <= FREELY else min(wanted, _most())
