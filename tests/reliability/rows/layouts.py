"""Arrays as they may lie in memory: each gives the bits that its contiguous copy gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

import fastconv
from fastconv.testing.problems import ConvCase, conv_cases, fill, pool_cases, transposed_cases
from reliability.board import Outcome, row
from reliability.oracle import Array

Change = Callable[[Array], Any]


def _every(*steps: slice) -> Change:
    """Lying in a larger array, each axis with one of these steps in turn, the last for all that are left."""

    def change(a: Array) -> Array:
        chosen = [steps[min(axis, len(steps) - 1)] for axis in range(a.ndim)]
        reach = [abs(s.step or 1) for s in chosen]
        wide = np.full(tuple(n * r + 2 for n, r in zip(a.shape, reach, strict=True)), 99, a.dtype)
        view = wide
        for axis, (s, n) in enumerate(zip(chosen, a.shape, strict=True)):
            step = s.step or 1
            first = 1 if step > 0 else 1 + (n - 1) * -step
            index = first + step * np.arange(n)
            sliced = slice(first, index[-1] + (1 if step > 0 else -1) if n else first, step)
            if n and sliced.stop < 0:
                sliced = slice(first, None, step)
            view = view[(slice(None),) * axis + (sliced,)]
        view[...] = a
        return view

    return change


def _axes(axes: Callable[[int], list[int]]) -> Change:
    """In memory with the axes in another order."""

    def change(a: Array) -> Array:
        order = axes(a.ndim)
        return np.ascontiguousarray(a.transpose(order)).transpose(np.argsort(order))

    return change


def _repeated(*axes: int) -> Change:
    """One element along these axes, with a stride of zero (from the end: the last is -1)."""

    def change(a: Array) -> Array:
        mine = {axis % a.ndim for axis in axes if -a.ndim <= axis < a.ndim}
        one = a[tuple(slice(0, 1) if axis in mine else slice(None) for axis in range(a.ndim))]
        return np.broadcast_to(one.copy(), a.shape) if a.size else a

    return change


def _at_byte(offset: int) -> Change:
    def change(a: Array) -> Array:
        raw = np.zeros(a.nbytes + 64, np.uint8)
        view = raw[offset : offset + a.nbytes].view(a.dtype).reshape(a.shape)
        view[...] = a
        return view

    return change


def _odd_stride(axis: int) -> Change:
    """One byte between neighbours along an axis more than they need."""

    def change(a: Array) -> Array:
        strides, reach = [0] * a.ndim, a.itemsize
        for at in reversed(range(a.ndim)):
            reach += at == axis % a.ndim
            strides[at] = reach
            reach *= max(1, a.shape[at])
        raw = np.zeros(reach + a.itemsize, np.uint8)
        view = np.ndarray(a.shape, a.dtype, raw, 0, strides)
        view[...] = a
        return view

    return change


def _in_a_record(*before: Any, align: bool = False) -> Change:
    def change(a: Array) -> Array:
        records = np.zeros(a.shape, np.dtype([*before, ("value", a.dtype), ("tail", "u1")], align=align))
        records["value"] = a
        return records["value"]

    return change


def _junk_strides(junk: int) -> Change:
    """NumPy may leave any stride on an axis of one element."""

    def change(a: Array) -> Array:
        strides = tuple(junk if n == 1 else s for n, s in zip(a.shape, a.strides, strict=True))
        return as_strided(a, a.shape, strides)

    return change


def _overlapping(a: Array) -> Array:
    """Rows that share memory with their neighbours, as in a sliding window."""
    if a.ndim < 2 or a.size == 0:
        return a
    line = np.resize(a, sum(a.shape))
    return as_strided(line, a.shape, (a.itemsize,) * a.ndim, writeable=False)


def _read_only(a: Array) -> Array:
    locked = a.copy()
    locked.flags.writeable = False
    return locked


def _mapped(mode: Any, offset: int = 0) -> Change:
    def change(a: Array) -> Array:
        if a.size == 0:
            return a
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x" * offset + a.tobytes())
            file.flush()
            return np.memmap(file.name, a.dtype, mode, offset, a.shape)

    return change


class _Subclass(np.ndarray):
    """Whose slices and sums are not what fastconv may rely on."""

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError("fastconv must not index a subclass by its own rules")

    def __array_finalize__(self, other: Any) -> None:
        pass


class _Offering:
    """No array, but one that offers itself through NumPy's protocol."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.array if dtype is None else self.array.astype(dtype)


class _Interface:
    def __init__(self, array: Array) -> None:
        self._array = array  # keeps the memory
        self.__array_interface__ = array.__array_interface__


def _crop(a: Array) -> Array:
    wide = np.pad(a, [(1, 2)] * a.ndim, constant_values=7)
    return wide[(slice(1, -2),) * a.ndim]


def _swapped(a: Array) -> Array:
    return a.astype(a.dtype.newbyteorder())


LAYOUTS: dict[str, Change] = {
    "Fortran order": np.asfortranarray,
    "last two axes swapped": _axes(lambda n: [*range(n - 2), *((n - 1, n - 2) if n > 1 else range(n))]),
    "first two axes swapped": _axes(lambda n: [1, 0, *range(2, n)] if n > 1 else [0]),
    "first axis innermost": _axes(lambda n: [*range(1, n), 0]),
    "last axis outermost": _axes(lambda n: [n - 1, *range(n - 1)]),
    "channels-last memory": _axes(lambda n: [*range(n - 3), n - 2, n - 1, n - 3] if n > 2 else [*range(n)]),
    "channels-first memory": _axes(lambda n: [*range(n - 3), n - 1, n - 3, n - 2] if n > 2 else [*range(n)]),
    "every second of every axis": _every(slice(None, None, 2)),
    "every third of the last axes": _every(slice(None), slice(None), slice(None, None, 3)),
    "every second image": _every(slice(None, None, 2), slice(None)),
    "negative everywhere": _every(slice(None, None, -1)),
    "negative first axis": _every(slice(None, None, -1), slice(None)),
    "negative second axis": _every(slice(None), slice(None, None, -1), slice(None)),
    "negative last axes": _every(slice(None), slice(None), slice(None, None, -1)),
    "negative by two and three": _every(slice(None, None, -2), slice(None), slice(None, None, -3)),
    "stride 0, first axis": _repeated(0),
    "stride 0, second axis": _repeated(1),
    "stride 0, last but one": _repeated(-2),
    "stride 0, last axis": _repeated(-1),
    "stride 0, last two": _repeated(-1, -2),
    "stride 0 everywhere": _repeated(0, 1, 2, 3),
    "overlapping rows": _overlapping,
    "one byte off": _at_byte(1),
    "three bytes off": _at_byte(3),
    "half an item off": lambda a: _at_byte(max(1, a.itemsize // 2))(a),
    "odd bytes between items": _odd_stride(-1),
    "odd bytes between rows": _odd_stride(-2),
    "odd bytes between images": _odd_stride(0),
    "a field of a packed record": _in_a_record(("pad", "u1", 3)),
    "a field of an aligned record": _in_a_record(("pad", "u1", 5), align=True),
    "byte-swapped": _swapped,
    "byte-swapped, Fortran order": lambda a: np.asfortranarray(_swapped(a)),
    "byte-swapped, negative": lambda a: _every(slice(None, None, -1))(_swapped(a)),
    "read-only": _read_only,
    "read-only bytes": lambda a: np.frombuffer(bytes(a.tobytes() or b"0" * 8), a.dtype, a.size).reshape(a.shape),
    "memory-mapped, read-only": _mapped("r"),
    "memory-mapped, copy on write, odd offset": _mapped("c", 13),
    "junk strides of axes of one": _junk_strides(2**40 + 1),
    "negative junk strides": _junk_strides(-(2**40) - 3),
    "a crop of a larger array": _crop,
    "a subclass": lambda a: a.view(_Subclass),
    "a masked array, nothing masked": np.ma.asarray,
    "an object with __array__": _Offering,
    "an object with __array_interface__": _Interface,
    "a memoryview": lambda a: memoryview(a) if a.size else a,
}


@row(
    f"array layouts: {len(LAYOUTS)}, as input, weight, bias, residual, grad_output of conv2d and its gradients",
    f"{len(LAYOUTS)} × 200 (quick × 10), each bit-equal to the contiguous copy",
    quick=10, full=200, order=90,
)  # fmt: skip
def array_layouts(count: int) -> Outcome:
    """`count` problems for each layout; a fifth as many transposed ones and poolings beside them."""
    outcome = Outcome()
    for number, (name, change) in enumerate(LAYOUTS.items()):
        # other problems for every layout, or a quick run would see the same few again and again
        for case in conv_cases(count, 1000 * number):
            _checked(outcome, f"{name}, {case}", _convolution, case, change)
        for case in transposed_cases(-(-count // 5), 1000 * number):
            _checked(outcome, f"{name}, {case}", _transposed, case, change)
        for pool in pool_cases(-(-count // 5), 1000 * number):
            _checked(outcome, f"{name}, {pool}", _pooled, pool, change)
    outcome.measured = f"{len(LAYOUTS)} layouts"
    return outcome


def _checked(outcome: Outcome, what: str, check: Callable[..., str | None], *arguments: Any) -> None:
    try:
        wrong = check(*arguments)
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    outcome.check(wrong is None, f"{what}: {wrong}")


def _plain(array: Any) -> Array:
    """The same values in native byte order, C-contiguous."""
    plain = np.array(array, order="C", subok=False)
    return plain.astype(plain.dtype.newbyteorder("="))


def same_bits(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and bool(one.tobytes() == other.tobytes())


def _convolution(case: ConvCase, change: Change) -> str | None:
    options = case.options()
    x, w, b = case.arrays("reals")
    shape = fastconv.conv2d(x, w, **options).shape
    residual, dy = (fill(case.rng(name), shape, case.dtypes[0]) for name in ("residual", "grad_output"))
    moved = [None if a is None else change(a) for a in (x, w, b, residual, dy)]
    plain = [None if a is None else _plain(a) for a in moved]
    results = []
    for x2, w2, b2, r2, dy2 in (moved, plain):
        with_residual = {"residual": r2} if case.dtypes[0] == case.dtypes[1] else {}
        y = fastconv.conv2d(x2, w2, b2, **options, **with_residual)
        results.append((y, *fastconv.conv2d_backward(dy2, x2, w2, **options)))
    out = change(np.zeros_like(results[1][0]))
    if _can_be_written(out):
        with_residual = {"residual": moved[3]} if case.dtypes[0] == case.dtypes[1] else {}
        if fastconv.conv2d(*moved[:3], **options, **with_residual, out=out) is not out:
            return "the result is not out"
        if not same_bits(np.array(out), results[1][0]):
            return "out differs"
    for what, ours, right in zip(("y", "grad_input", "grad_weight", "grad_bias"), *results, strict=True):
        if not same_bits(ours, right):
            return f"{what} differs"
    return None


def _can_be_written(out: Any) -> bool:
    return isinstance(out, np.ndarray) and out.flags.writeable and out.dtype.isnative and 0 not in out.strides


def _transposed(case: ConvCase, change: Change) -> str | None:
    moved = [None if a is None else change(a) for a in case.arrays("reals")]
    y, right = (
        fastconv.conv_transpose2d(*arrays, **case.options())
        for arrays in (moved, [None if a is None else _plain(a) for a in moved])
    )
    return None if same_bits(y, right) else "the transposed convolution differs"


def _pooled(case: Any, change: Change) -> str | None:
    moved = change(fill(case.rng("input"), case.input_shape, case.dtype))
    options = {**case.options(), "return_indices": True}
    pairs = zip(
        fastconv.max_pool2d(moved, case.kernel, **options), fastconv.max_pool2d(_plain(moved), case.kernel, **options),
        strict=True,
    )  # fmt: skip
    if not all(same_bits(a, b) for a, b in pairs):
        return "the maximum differs"
    if case.dtype.startswith("float"):
        means = [fastconv.avg_pool2d(a, case.kernel, **case.options()) for a in (moved, _plain(moved))]
        if not same_bits(*means):
            return "the mean differs"
    return None
