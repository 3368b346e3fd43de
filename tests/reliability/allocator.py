"""Tests with every block of memory between inaccessible pages, counted, or failing (tests/native/allocator.c).

The allocator is compiled on the spot and preloaded, so that a row which needs it starts its process anew. It serves
fastconv's scratch memory and the data of all NumPy arrays made in this thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from reliability.board import Outcome

SOURCE = Path(__file__).resolve().parents[1] / "native" / "allocator.c"
BEHIND, BEFORE, POISONED = 1, 2, 4  # where the inaccessible page adjoins; filled with NaN (-1)
PAGE = 4096  # as in allocator.c
SET_HANDLER = 304  # PyDataMem_SetHandler in NumPy's table of functions, since 1.22

_process = ctypes.CDLL(None)
_kept: list[object] = []  # what native code holds pointers to


def with_allocator(run: Callable[[int], Outcome]) -> Callable[[int], Outcome]:
    """A row's function that runs under the allocator, in this process started anew; skipped where it can't be had."""

    @functools.wraps(run)
    def preloaded(count: int) -> Outcome:
        if hasattr(_process, "memory_mode"):
            install()
            return run(count)
        if why := _missing():
            return Outcome(skipped=why)
        with tempfile.NamedTemporaryFile(suffix=".so") as library:
            compiler = os.environ.get("CC", "cc")
            flags = ["-O2", "-shared", "-fPIC", "-pthread"]
            done = subprocess.run(
                [compiler, *flags, "-o", library.name, str(SOURCE)], capture_output=True, text=True, check=False
            )
            if done.returncode:
                return Outcome(skipped=f"{compiler} does not compile {SOURCE.name}: {done.stderr[-300:]}")
            # this process's command once more; the outcome goes to the file that it names
            environment = {**os.environ, "LD_PRELOAD": library.name}
            done = subprocess.run([sys.executable, *sys.orig_argv[1:]], env=environment, check=False)
        os._exit(done.returncode if done.returncode >= 0 else 128 - done.returncode)

    return preloaded


def _missing() -> str:
    if sys.platform != "linux" or mmap.PAGESIZE != PAGE:
        return "guarded memory is written for Linux with pages of 4096 bytes"
    if os.environ.get("LD_PRELOAD"):
        return f"LD_PRELOAD is {os.environ['LD_PRELOAD']} already"
    if not shutil.which(os.environ.get("CC", "cc")):
        return "no C compiler to build the guarded allocator with"
    return ""


class _Functions(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in ("context", "malloc", "calloc", "realloc", "free")]


class _Handler(ctypes.Structure):
    """NumPy's PyDataMem_Handler, version 1."""

    _fields_ = [("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("functions", _Functions)]


def install() -> None:
    """Give NumPy the allocator for the arrays of this thread, and let faults say what was being done.

    A process that a row starts needs it too: it inherits the preloaded library, but not NumPy's handler.
    """
    if _kept:
        return
    for name in ("live_blocks", "live_bytes", "peak_bytes"):
        getattr(_process, f"memory_{name}").restype = ctypes.c_ssize_t
    names = ("malloc", "calloc", "realloc", "free")
    pointers = [ctypes.cast(getattr(_process, f"data_{name}"), ctypes.c_void_p) for name in names]
    handler = _Handler(b"guarded", 1, _Functions(None, *(pointer.value for pointer in pointers)))
    api = ctypes.pythonapi
    api.PyCapsule_New.restype = ctypes.py_object
    api.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    capsule = api.PyCapsule_New(ctypes.addressof(handler), b"mem_handler", None)
    core: Any = np._core if hasattr(np, "_core") else np.core
    table = api.PyCapsule_GetPointer(core._multiarray_umath._ARRAY_API, None)
    function = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))[SET_HANDLER]
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(function or 0)
    _kept.extend([handler, capsule, set_handler(capsule)])
    _process.memory_watch_faults()


@contextlib.contextmanager
def guarded(mode: int) -> Iterator[None]:
    """Memory from the allocator: `BEHIND` or `BEFORE`, and perhaps `POISONED`."""
    _process.memory_mode(mode)
    try:
        yield
    finally:
        _process.memory_mode(0)


@contextlib.contextmanager
def failing(number: int) -> Iterator[None]:
    """The `number`-th request of the guarded block fails."""
    _process.memory_fail_at(number)
    try:
        yield
    finally:
        _process.memory_fail_at(0)


def live_blocks() -> int:
    return int(_process.memory_live_blocks())


def live_bytes() -> int:
    return int(_process.memory_live_bytes())


@contextlib.contextmanager
def peak() -> Iterator[list[int]]:
    """A list that holds, after the block, by how many bytes memory from the allocator exceeded what it began with."""
    _process.memory_reset_peak()
    before = live_bytes()
    result: list[int] = []
    yield result
    result.append(int(_process.memory_peak_bytes()) - before)


def note(text: str) -> None:
    """What a fault says that was being done."""
    _process.memory_note(text.encode()[:4000])
