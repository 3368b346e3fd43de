"""Every pair of element types: the result's type as the contract says, or an error; nothing wraps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

import fastconv
from fastconv import grad
from reliability.board import Outcome, row
from reliability.oracle import Array

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
TYPES = ("bool", *INTEGERS, *FLOATS, "complex64", "complex128")
# beside the 14: whatever else NumPy may hold
STRANGERS = ("longdouble", "object", "U3", "S3", "datetime64[s]", "timedelta64[s]", "V4")


def contract(first: str, second: str) -> str | None:
    """The result's type: floats their own, integers of up to 16 bits int32, wider ones int64; None: refused."""
    if first in FLOATS:
        return first if first == second else None
    if first not in INTEGERS or second not in INTEGERS:
        return None
    return "int32" if max(np.dtype(first).itemsize, np.dtype(second).itemsize) <= 2 else "int64"


@row(
    f"the dtype matrix: every pair of {len(TYPES)} NumPy dtypes (and {len(STRANGERS)} stranger ones), each operation",
    "as the contract says: one float type or integers, exact or refused, nothing wraps",
    quick=len(TYPES) ** 2, full=len(TYPES) ** 2, order=110,
)  # fmt: skip
def dtype_matrix(count: int) -> Outcome:
    """Small values, and the largest of each type, whose sums leave the range of the result for some pairs."""
    outcome = Outcome()
    accepted = overflows = 0
    for first, second in product((*TYPES, *STRANGERS), repeat=2):
        wanted = contract(first, second)
        for name, call, arrays in _operations(first, second):
            got = _outcome(call)
            if wanted is None:
                fine = isinstance(got, fastconv.ConvTypeError)
                outcome.check(fine, f"{name} of {first} and {second}: {_words(got)}, not a ConvTypeError")
            else:
                fine = isinstance(got, np.ndarray) and got.dtype == wanted and _right(name, got, arrays)
                outcome.check(fine, f"{name} of {first} and {second}: {_words(got)}, not the right {wanted}")
                accepted += fine
        if wanted and first in INTEGERS:
            for sign in (1, -1):
                wrong, overflow = _extremes(first, second, wanted, sign)
                overflows += overflow
                outcome.check(wrong is None, f"{first} and {second} at their limits: {wrong}")
    for name, dtype in product(("bias", "residual"), (*TYPES, *STRANGERS)):
        for main in ("float32", "float16", "int8", "int32"):
            _check_addend(outcome, name, main, dtype)
    outcome.measured = f"{accepted:,} right results, {overflows} overflows refused"
    return outcome


def _filled(dtype: str, *shape: int) -> Array:
    values = np.arange(np.prod(shape)).reshape(shape) % 3 + 1
    return np.zeros(shape, dtype) if dtype in STRANGERS[4:] else values.astype(dtype)


def _operations(first: str, second: str) -> Iterator[tuple[str, Callable[[], Any], tuple[Array, Array]]]:
    """Calls of a pair of types, and the two arrays of each."""
    x, dy = _filled(first, 1, 2, 4, 5), _filled(first, 1, 3, 3, 4)
    w, x2 = _filled(second, 3, 2, 2, 2), _filled(second, 1, 2, 4, 5)
    yield "conv2d", lambda: fastconv.conv2d(x, w), (x, w)
    yield "conv_transpose2d", lambda: fastconv.conv_transpose2d(dy, w), (dy, w)
    yield "conv2d_input", lambda: grad.conv2d_input(x.shape, w, dy), (dy, w)
    yield "conv2d_weight", lambda: grad.conv2d_weight(x2, w.shape, dy), (dy, x2)
    yield "conv_transpose2d_input", lambda: grad.conv_transpose2d_input(dy.shape, w, x), (x, w)
    yield "conv_transpose2d_weight", lambda: grad.conv_transpose2d_weight(dy, w.shape, x2), (dy, x2)
    backward = (True, False, False)
    yield "conv2d_backward 0", lambda: fastconv.conv2d_backward(dy, x2, w, output_mask=backward)[0], (dy, w)
    yield "conv2d_backward 1", lambda: fastconv.conv2d_backward(dy, x2, w)[1], (dy, x2)
    yield "tiled_conv2d", lambda: fastconv.tiled_conv2d(x, w[None, None]), (x, w)
    yield "conv1d", lambda: fastconv.conv1d(x[:, :, 0], w[:, :, 0]), (x[:, :, :1], w[:, :, :1])


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


def _words(got: Any) -> str:
    return f"{type(got).__name__}: {got}" if isinstance(got, Exception) else f"{got.dtype}{got.shape}"


def _right(name: str, got: Array, arrays: tuple[Array, Array]) -> bool:
    """Whether the small values came out exactly, by loops over Python's own numbers."""
    one, other = (a.astype(object) if a.dtype.kind in "iu" else a.astype(np.float64).astype(object) for a in arrays)
    if name in ("conv2d", "tiled_conv2d", "conv1d", "conv_transpose2d_input"):
        right = _correlate(one, other)
    elif name in ("conv_transpose2d", "conv2d_input", "conv2d_backward 0"):
        right = _spread(one, other)
    else:
        right = _correlate(other.swapaxes(0, 1), one.swapaxes(0, 1)).swapaxes(0, 1)
    return bool(np.array_equal(got.reshape(right.shape).astype(object), right))


def _correlate(x: Array, w: Array) -> Array:
    kh, kw = w.shape[2:]
    y = np.zeros((x.shape[0], w.shape[0], x.shape[2] - kh + 1, x.shape[3] - kw + 1), object)
    for n, o, p, q in np.ndindex(*y.shape):
        y[n, o, p, q] = (x[n, :, p : p + kh, q : q + kw] * w[o]).sum()
    return y


def _spread(dy: Array, w: Array) -> Array:
    kh, kw = w.shape[2:]
    x = np.zeros((dy.shape[0], w.shape[1], dy.shape[2] + kh - 1, dy.shape[3] + kw - 1), object)
    for n, o, p, q in np.ndindex(*dy.shape):
        x[n, :, p : p + kh, q : q + kw] += dy[n, o, p, q] * w[o]
    return x


def _extremes(first: str, second: str, wanted: str, sign: int) -> tuple[str | None, bool]:
    """The largest values: the exact sum where it fits in the result, else refused; and whether it was."""
    x = np.full((1, 3, 3, 3), np.iinfo(first).max if sign > 0 else np.iinfo(first).min, first)
    w = np.full((2, 3, 2, 2), np.iinfo(second).max, second)
    right = _correlate(x.astype(object), w.astype(object))
    limits = np.iinfo(wanted)
    fits = limits.min <= right.min() and right.max() <= limits.max
    got = _outcome(lambda: fastconv.conv2d(x, w))
    if isinstance(got, fastconv.ConvError):
        # an input that int64 cannot hold is refused, even if its products would fit
        unholdable = any(int(a.max()) > np.iinfo("int64").max for a in (x, w))
        return (f"refused, though {right.max()} fits: {got}" if fits and not unholdable else None), True
    if isinstance(got, Exception):
        return _words(got), False
    if not fits:
        return f"{got.flat[0]} in place of {right.flat[0]}, which does not fit", False
    return (None if np.array_equal(got.astype(object), right) else f"{got.flat[0]}, not {right.flat[0]}"), False


def _check_addend(outcome: Outcome, name: str, main: str, dtype: str) -> None:
    x, w = _filled(main, 1, 2, 4, 5), _filled(main, 3, 2, 2, 2)
    added = _filled(dtype, *((3,) if name == "bias" else (1, 3, 3, 4)))
    got = _outcome(lambda: fastconv.conv2d(x, w, **{name: added}))
    allowed = dtype == main if main in FLOATS else dtype in INTEGERS
    if not allowed:
        fine = isinstance(got, fastconv.ConvTypeError)
        outcome.check(fine, f"{name} of {dtype} to {main}: {_words(got)}, not a ConvTypeError")
        return
    plus = added.reshape(1, 3, 1, 1) if name == "bias" else added
    right = _correlate(x.astype(np.float64).astype(object), w.astype(np.float64).astype(object)) + plus
    fine = isinstance(got, np.ndarray) and got.dtype == contract(main, main) and np.array_equal(got, right)
    outcome.check(fine, f"{name} of {dtype} to {main}: {_words(got)}")
