"""Not one byte is read or written outside any array.

Every array lies flush against an inaccessible page, at its end or at its start, in turn; a read or write beyond it is a
fault that ends the process. The work runs in a process of its own, which notes the case at hand before it starts it, so
that a fault becomes a failed test that names its case.
"""

import ctypes
import itertools
import math
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from settings import COUNT

import fastconv
from fastconv import grad
from fastconv.testing.problems import (
    ConvCase,
    PoolCase,
    TiledCase,
    conv_cases,
    fill,
    pool_cases,
    tiled_cases,
    transposed_cases,
)

PAGE = mmap.PAGESIZE
PROT_NONE, PROT_READ_WRITE = 0, 3
# (kind of operation, first case, last + 1); each is run with the pages behind the arrays and with the pages before.
SHARES = {  # 1 case in so many
    "conv2d": 2, "conv_transpose2d": 6, "tiled_conv2d": 12, "pool2d": 6, "winograd": 12, "depthwise": 6,
}  # fmt: skip
COUNTS = {kind: max(1, COUNT // share) for kind, share in SHARES.items()}
BATCHES = [
    (kind, start, min(start + 250, count)) for kind, count in COUNTS.items() for start in range(0, count, 250)
]


class GuardedMemory:
    """Arrays between two inaccessible pages."""

    def __init__(self, at_end: bool) -> None:
        self.at_end = at_end
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self.kept: list[mmap.mmap] = []

    def protect(self, address: int, size: int, protection: int) -> None:
        if self.libc.mprotect(address, size, protection):
            raise OSError(ctypes.get_errno(), "mprotect")

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        room = -(-max(size, 1) // PAGE) * PAGE
        block = mmap.mmap(-1, room + 2 * PAGE)
        self.kept.append(block)
        address = ctypes.addressof(ctypes.c_char.from_buffer(block))
        self.protect(address, PAGE, PROT_NONE)
        self.protect(address + PAGE + room, PAGE, PROT_NONE)
        offset = PAGE + (room - size if self.at_end else 0)
        return np.ndarray(shape, dtype, block, offset)

    def copy(self, array: np.ndarray | None) -> np.ndarray | None:
        if array is None:
            return None
        guarded = self.empty(array.shape, array.dtype)
        guarded[...] = array
        return guarded

    def forget(self) -> None:
        """Give the memory back once its arrays are gone."""
        for block in self.kept:
            address = ctypes.addressof(ctypes.c_char.from_buffer(block))
            self.protect(address, len(block), PROT_READ_WRITE)
        self.kept.clear()


@contextmanager
def guarded(at_end: bool) -> Iterator[GuardedMemory]:
    memory = GuardedMemory(at_end)
    yield memory
    memory.forget()


def equal(got: Any, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(got, expected)


def check_conv(case: ConvCase, memory: GuardedMemory, **options: Any) -> None:
    options = {**case.options(), **options}
    x, w, b = case.arrays("integers")
    gx, gw, gb = memory.copy(x), memory.copy(w), memory.copy(b)
    threads = 1 + case.index % 3
    if case.transposed:
        expected = fastconv.conv_transpose2d(x, w, b, **options)
        out = memory.empty(expected.shape, expected.dtype)
        fastconv.conv_transpose2d(gx, gw, gb, **options, num_threads=threads, out=out)
        equal(out, expected)
        dy = fill(case.rng("dy"), expected.shape, case.dtypes[0], "integers")
        gdy = memory.copy(dy)
        equal(
            grad.conv_transpose2d_input(x.shape, gw, gdy, **options),
            grad.conv_transpose2d_input(x.shape, w, dy, **options),
        )
        equal(
            grad.conv_transpose2d_weight(gx, w.shape, gdy, **options),
            grad.conv_transpose2d_weight(x, w.shape, dy, **options),
        )
        return
    expected = fastconv.conv2d(x, w, b, **options)
    residual = fill(case.rng("residual"), expected.shape, case.dtypes[0], "integers") if case.with_residual else None
    if residual is not None:
        expected = fastconv.conv2d(x, w, b, residual=residual, **options)
    out = memory.empty(expected.shape, expected.dtype)
    fastconv.conv2d(gx, gw, gb, residual=memory.copy(residual), **options, num_threads=threads, out=out)
    equal(out, expected)
    dy = fill(case.rng("dy"), expected.shape, case.dtypes[0], "integers")
    ours = fastconv.conv2d_backward(memory.copy(dy), gx, gw, **options, num_threads=threads)
    for got, wanted in zip(ours, fastconv.conv2d_backward(dy, x, w, **options), strict=True):
        equal(got, wanted)


def check_winograd(case: ConvCase, memory: GuardedMemory) -> None:
    size = (max(case.size[0], 7), max(case.size[1], 7))
    dtypes = ("float32", "float32")
    case = replace(case, kernel=(3, 3), stride=1, dilation=1, groups=1, size=size, dtypes=dtypes)
    if 0 < case.in_channels * case.out_channels * size[0] * size[1] < 100_000:
        check_conv(case, memory, algorithm="winograd")


def check_depthwise(case: ConvCase, memory: GuardedMemory) -> None:
    """Every channel, or every few, a group of its own."""
    few = case.index % 3 + 1
    groups = max(1, case.in_channels // few)
    outputs = groups * (case.index % 4 + 1)
    check_conv(replace(case, in_channels=few * groups, out_channels=outputs, groups=groups), memory)


def check_tiled(case: TiledCase, memory: GuardedMemory) -> None:
    x = fill(case.rng("input"), case.input_shape, case.dtype, "integers")
    w = fill(case.rng("weight"), case.weight_shape, case.dtype, "integers")
    b = fill(case.rng("bias"), (case.out_channels,), case.dtype, "integers") if case.with_bias else None
    expected = fastconv.tiled_conv2d(x, w, b, **case.options())
    out = memory.empty(expected.shape, expected.dtype)
    gx, gw = memory.copy(x), memory.copy(w)
    fastconv.tiled_conv2d(gx, gw, memory.copy(b), **case.options(), out=out)
    equal(out, expected)
    dy = fill(case.rng("dy"), expected.shape, case.dtype, "integers")
    gdy = memory.copy(dy)
    equal(
        grad.tiled_conv2d_input(x.shape, gw, gdy, **case.options()),
        grad.tiled_conv2d_input(x.shape, w, dy, **case.options()),
    )
    equal(
        grad.tiled_conv2d_weight(gx, w.shape, gdy, **case.options()),
        grad.tiled_conv2d_weight(x, w.shape, dy, **case.options()),
    )


def check_pool(case: PoolCase, memory: GuardedMemory) -> None:
    x = fill(case.rng("input"), case.input_shape, case.dtype)
    gx = memory.copy(x)
    options = {**case.options(), "dilation": case.dilation, "return_indices": True}
    expected = fastconv.max_pool2d(x, case.kernel, **options)
    out = memory.empty(expected[0].shape, case.dtype)
    for got, wanted in zip(fastconv.max_pool2d(gx, case.kernel, **options, out=out), expected, strict=True):
        equal(got, wanted)
    if not case.dtype.startswith("float"):
        return
    mean = fastconv.avg_pool2d(x, case.kernel, **case.options())
    out = memory.empty(mean.shape, case.dtype)
    equal(fastconv.avg_pool2d(gx, case.kernel, **case.options(), out=out), mean)
    dy = fill(case.rng("dy"), mean.shape, case.dtype)
    equal(
        grad.avg_pool2d_input(x.shape, case.kernel, memory.copy(dy), **case.options()),
        grad.avg_pool2d_input(x.shape, case.kernel, dy, **case.options()),
    )
    dy = fill(case.rng("dy"), expected[0].shape, case.dtype)
    del options["return_indices"]
    equal(
        grad.max_pool2d_input(gx, case.kernel, memory.copy(dy), **options),
        grad.max_pool2d_input(x, case.kernel, dy, **options),
    )


CHECKS = {
    "conv2d": (conv_cases, check_conv),
    "conv_transpose2d": (transposed_cases, check_conv),
    "tiled_conv2d": (tiled_cases, check_tiled),
    "pool2d": (pool_cases, check_pool),
    "winograd": (conv_cases, check_winograd),
    "depthwise": (conv_cases, check_depthwise),
}


def run_batch(kind: str, start: int, stop: int, note: Path) -> None:
    """What the child does: every case, with the guard behind the arrays and before them."""
    cases, check = CHECKS[kind]
    for case, at_end in itertools.product(cases(stop)[start:stop], (True, False)):
        note.write_text(f"{kind}, guard page {'behind' if at_end else 'before'} every array: {case}")
        with guarded(at_end) as memory:
            check(case, memory)  # type: ignore[operator]
    note.write_text("")


def run_child(arguments: list[str], note: Path) -> subprocess.CompletedProcess[str]:
    folders = [str(Path(__file__).parent), str(Path(fastconv.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))}
    return subprocess.run(
        [sys.executable, __file__, *arguments, str(note)],
        env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


needs_mprotect = pytest.mark.skipif(os.name != "posix", reason="guard pages need mprotect")


@needs_mprotect
@pytest.mark.parametrize("kind, start, stop", BATCHES, ids=lambda v: str(v))
def test_no_byte_outside_the_arrays_is_touched(kind, start, stop, tmp_path):
    note = tmp_path / "case"
    child = run_child([kind, str(start), str(stop)], note)
    if child.returncode:
        pytest.fail(f"exit status {child.returncode} in {note.read_text()}\n{child.stderr[-2000:]}")
    assert note.read_text() == ""


@needs_mprotect
@pytest.mark.parametrize("where", ["behind", "before"])
def test_the_guard_guards(where, tmp_path):
    """One byte too far ends the child, and the note says where it was."""
    child = run_child([where], tmp_path / "case")
    assert child.returncode < 0, "the access went through"
    assert (tmp_path / "case").read_text() == where


def overstep(where: str, note: Path) -> None:
    array = GuardedMemory(where == "behind").empty((3, 5), np.uint8)
    array[...] = 1
    note.write_text(where)
    ctypes.string_at(array.ctypes.data + (array.size if where == "behind" else -1), 1)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        overstep(sys.argv[1], Path(sys.argv[2]))
    else:
        run_batch(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
