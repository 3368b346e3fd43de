"""PyTorch's threads for our work.

After each of its operators PyTorch's OpenMP threads spin for milliseconds, on the CPUs that threads of our own would
need: in a training step, where our operators and PyTorch's take turns, each call of ours would run on one CPU. So a
process that uses both runs our work on PyTorch's threads, which are awake already.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import torch

from .. import _native

MAPS = Path("/proc/self/maps")  # of Linux: which libraries are loaded


def share() -> None:
    """Run our work on PyTorch's threads from now on, if its OpenMP is GNU's and can be found."""
    found = _openmp_of_torch()
    if found is not None:
        names = ("GOMP_parallel", "omp_get_thread_num", "omp_in_parallel", "omp_get_max_threads")
        _native.use_threads_of(*(ctypes.cast(getattr(found, name), ctypes.c_void_p).value or 0 for name in names))


def give_back() -> None:
    """Threads of our own again."""
    _native.use_threads_of(0, 0, 0, 0)


def _openmp_of_torch() -> ctypes.CDLL | None:
    """The loaded library that `torch.set_num_threads` reaches."""
    try:
        lines = MAPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    paths = dict.fromkeys(line.split(maxsplit=5)[-1] for line in lines if "/libgomp" in line)
    before = torch.get_num_threads()
    for path in paths:
        try:
            library = ctypes.CDLL(path)
            usual = library.omp_get_max_threads()
            torch.set_num_threads(usual + 1)
            if library.omp_get_max_threads() == usual + 1:
                return library
        except (OSError, AttributeError):
            continue
        finally:
            torch.set_num_threads(before)
    return None
