"""Softmax and normalisations in native code, for arrays of float32 and float64 that lie without gaps in any order."""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from typing import Any, Final

import numpy as np

from ... import _native
from ..._core.arrays import Array
from ..._core.steps import SERIAL_BELOW, TYPES
from ..._core.threads import effective
from .moving import moved
from .registry import Call

LEAST_PERIOD: Final = 64  # values of a scale that repeats: below, it is written out, as each repetition is a call


def native(x: Array) -> bool:
    """Whether there are kernels for such an array."""
    return x.dtype in TYPES and x.size > 0


def softmax(call: Call, x: Array, axis: int, logarithm: bool) -> Array:
    """exp(x) over its sum along an axis, or the logarithm of that."""
    flattened = not np.shares_memory(x, call.inputs[0])  # by a copy
    x, apart = _without_gaps(call, x)
    order = _order(x)
    at = order.index(axis)
    sizes = [x.shape[number] for number in order]
    shape = prod(sizes[:at]), sizes[at], prod(sizes[at + 1 :])
    out, place = _result(call, x)
    _native.softmax(_flat(out, order), _flat(x, order), shape, logarithm, _team(call, x))
    return _given(call, out, place, apart or flattened)


def standardised(
    call: Call, x: Array, axes: Collection[int], scale: Array | None, shift: Array | None, epsilon: float, centre: bool
) -> Array:
    """(x - mean) / sqrt(variance + epsilon) * scale + shift over axes; without `centre` by the mean square alone.

    Scale and shift repeat along the other axes, and are the inputs 1 and 2.
    """
    order = _order(x)
    inner = [axis for axis in order if axis in axes]
    outer = [axis for axis in order if axis not in axes]
    x, apart = _without_gaps(call, x, [*outer, *inner])
    order = [*outer, *inner]
    length = prod(x.shape[axis] for axis in inner)
    operands: list[Array | None] = []
    for index, operand in enumerate((scale, shift), 1):
        made, fresh = _operand(call, index, operand, x, inner)
        operands.append(made)
        apart = apart or fresh
    if operands[0] is None and operands[1] is not None:
        operands[0] = np.ones_like(operands[1])
    rows = x.size // length
    out, place = _result(call, x)
    parts = _native.row_parts(length)
    sums = call.empty((rows * parts * 2,), np.float64) if parts > 1 else None
    _native.normalise_rows(
        _flat(out, order), _flat(x, order), rows, length, *operands, 0, sums, epsilon, centre, _team(call, x)
    )
    return _given(call, out, place, apart)


def grouped(call: Call, x: Array, groups: int, scale: Array, shift: Array, epsilon: float) -> Array:
    """Groups of channels of every image by their own mean and deviation, then a scale and a shift a channel."""
    batch, channels = x.shape[:2]
    last = (0, *range(2, x.ndim), 1)
    columns = channels > 1 and x.transpose(last).flags.c_contiguous
    apart = False
    if not columns:
        x, apart = _without_gaps(call, x, list(range(x.ndim)))
    order = list(last) if columns else list(range(x.ndim))
    pixels = x.size // (batch * channels)
    scale, shift = np.ascontiguousarray(scale, x.dtype), np.ascontiguousarray(shift, x.dtype)
    apart = apart or _made_now(call, 1, scale) or _made_now(call, 2, shift)
    out, place = _result(call, x)
    to, flat, team = _flat(out, order), _flat(x, order), _team(call, x)
    if columns:
        moments = call.empty((batch * _native.column_parts(pixels) * 2 * channels,), np.float64)
        found = call.empty((batch * 3 * channels,), x.dtype)
        shape = (batch, pixels, channels)
        _native.normalise_columns(to, flat, shape, scale, shift, groups, moments, found, epsilon, team)
    else:
        each = channels // groups
        parts = _native.row_parts(each * pixels)
        sums = call.empty((batch * groups * parts * 2,), np.float64) if parts > 1 else None
        _native.normalise_rows(
            to, flat, batch * groups, each * pixels, scale, shift, each, sums, epsilon, True, team
        )
    return _given(call, out, place, apart)


# ---- how arrays lie --------------------------------------------------------------------------------------------------


def _order(x: Array) -> list[int]:
    """The axes as they lie in memory, the outermost first; those of length 1 lie anywhere."""
    return sorted(range(x.ndim), key=lambda axis: (-abs(x.strides[axis]) if x.shape[axis] > 1 else 0, axis))


def _flat(x: Array, order: list[int]) -> Array:
    """An array without gaps as one row of its memory."""
    flat = x.transpose(order).reshape(-1)
    assert flat.base is not None  # a view
    return flat


def _without_gaps(call: Call, x: Array, order: list[int] | None = None) -> tuple[Array, bool]:
    """The array, copied where it does not lie in memory in the order of these axes, and whether NumPy did that."""
    order = _order(x) if order is None else order
    if x.transpose(order).flags.c_contiguous:
        return x, False
    held = call.empty([x.shape[axis] for axis in order], x.dtype).transpose(np.argsort(order))
    return held, not moved(call, held, x)


def _result(call: Call, x: Array) -> tuple[Array, Array | None]:
    """Where the result is computed, which lies as `x`, and where it has to go if that is elsewhere."""
    out = call.into(x)
    if all(a == b for a, b, size in zip(out.strides, x.strides, x.shape, strict=True) if size > 1):
        return out, None
    return call.like(x), out


def _given(call: Call, out: Array, place: Array | None, apart: bool) -> Array:
    """The result, moved to its place if it has one; `apart`: NumPy had a part in it."""
    apart = (place is not None and not moved(call, place, out)) or apart
    if not apart:
        call.natively()
    return out if place is None else place


def _operand(
    call: Call, index: int, operand: Array | None, x: Array, inner: list[int]
) -> tuple[Array | None, bool]:
    """A value for each of a row's, in its order, or for the first ones where they repeat, and whether it had to be made
    in this run; constants are kept."""
    if operand is None:
        return None, False
    key = (index, tuple(inner), x.shape, x.dtype)
    if (kept := call.state.get(key)) is not None:
        return kept, False
    own = (1,) * (x.ndim - operand.ndim) + operand.shape
    while len(inner) > 1 and own[inner[0]] == 1 and prod(x.shape[axis] for axis in inner[1:]) >= LEAST_PERIOD:
        inner = inner[1:]
    sizes = [x.shape[axis] if axis in inner else 1 for axis in range(x.ndim)]
    outer = [axis for axis in range(x.ndim) if axis not in inner]
    spread: Any = np.broadcast_to(operand, sizes).transpose([*outer, *inner]).reshape(-1)
    made = np.ascontiguousarray(spread, x.dtype)
    if call.is_constant(index):
        call.state[key] = made
    return made, _made_now(call, index, made)


def _made_now(call: Call, index: int, made: Array) -> bool:
    """Whether an operand was made of an input in this run, which the next would have to do again."""
    given = call.inputs[index] if index < len(call.inputs) else None
    return given is not None and not call.is_constant(index) and not np.shares_memory(made, given)


def _team(call: Call, x: Array) -> int:
    return effective(call.threads) if 8 * x.size >= SERIAL_BELOW else 1
