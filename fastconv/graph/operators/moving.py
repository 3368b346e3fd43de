"""Values moved natively: copies between arrays of any strides, and what is a few of them.

What is here says whether native works did all of it, so that an operator can tell its call so (`Call.natively`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any, Final

import numpy as np

from ... import _native
from ..._core.arrays import Array
from ..._core.threads import effective
from ..._core.words import Shape
from .registry import Call

MOST_AXES: Final = 16  # of arrays that are moved natively: more are not seen, and a table of each has its price
Places = tuple[Array | None, ...]


def moved(call: Call, out: Array, x: Array, places: Places = ()) -> bool:
    """out = x, of which along some axes `places` are taken in place of all; whether natively."""
    if out.dtype == x.dtype and not x.dtype.hasobject and x.ndim <= MOST_AXES:
        try:
            _native.move(out, x, places, effective(call.threads))
            return True
        except ValueError:  # too many axes that do not merge
            pass
    for axis, chosen in enumerate(places):
        if chosen is not None:
            x = np.take(x, chosen, axis)
    np.copyto(out, x)
    return False


def filled(call: Call, out: Array, value: Any) -> bool:
    """out = a number everywhere; whether natively."""
    return moved(call, out, np.broadcast_to(np.asarray(value).astype(out.dtype, copy=False), out.shape))


def cast(call: Call, x: Array, kind: np.dtype[Any]) -> Array | None:
    """x in another type, natively; None where there is no such conversion."""
    how = _native.CASTS.get((x.dtype.name, kind.name))
    if how is None or not x.dtype.isnative or not kind.isnative:
        return None
    if not x.transpose(order := memory_order(x)).flags.c_contiguous:
        x, order = copied(call, x)[0], list(range(x.ndim))
    out = call.ordered_like(x, x.shape, kind)
    _native.cast(out.transpose(order).reshape(-1), x.transpose(order).reshape(-1), how, effective(call.threads))
    call.natively()
    return out


def copied(call: Call, x: Array, shape: Shape | None = None) -> tuple[Array, bool]:
    """x side by side in memory in the order of its axes, of another shape if one is given; whether natively."""
    out = call.empty(x.shape, x.dtype)
    native = moved(call, out, x)
    return out if shape is None else out.reshape(shape), native


def reshaped(call: Call, x: Array, shape: Sequence[int]) -> Array:
    """x of another shape: a view, or where its axes lie otherwise a copy. `shape` may hold one -1."""
    if -1 in shape:
        rest = prod(size for size in shape if size != -1)
        shape = [x.size // max(1, rest) if size == -1 else size for size in shape]
    if x.flags.c_contiguous or x.dtype.hasobject or views_as(x.shape, x.strides, shape):
        return x.reshape(shape)
    out, native = copied(call, x, tuple(shape))
    if native and call.settled():
        call.natively()
    return out


def views_as(old: Sequence[int], strides: Sequence[int], new: Sequence[int]) -> bool:
    """Whether an array of these axes can be seen under others, as `numpy.reshape` sees it, without a copy."""
    axes = [(size, stride) for size, stride in zip(old, strides, strict=True) if size != 1]
    wanted = [size for size in new if size != 1]
    if 0 in old:
        return True
    while axes:
        group, covered = [axes.pop(0)], wanted.pop(0)
        held = group[0][0]
        while held != covered:
            if held < covered:
                group.append(axes.pop(0))
                held *= group[-1][0]
            else:
                covered *= wanted.pop(0)
        if any(outer[1] != inner[0] * inner[1] for outer, inner in pairwise(group)):
            return False
    return True


def memory_order(x: Array) -> list[int]:
    """The axes from the outermost in memory to the innermost; those of length one where they stand."""
    if x.flags.c_contiguous:
        return list(range(x.ndim))
    long = sorted((axis for axis in range(x.ndim) if x.shape[axis] > 1), key=lambda axis: -abs(x.strides[axis]))
    places = iter(long)
    return [next(places) if x.shape[axis] > 1 else axis for axis in range(x.ndim)]


def runs(places: Array) -> list[tuple[int, int, int, int]]:
    """Places as runs that step evenly: (first of them, how many, the first place, the step)."""
    found: list[tuple[int, int, int, int]] = []
    numbers = [int(place) for place in places]
    start = 0
    while start < len(numbers):
        end, step = start + 1, 0
        if end < len(numbers) and abs(numbers[end] - numbers[start]) <= 1:
            step = numbers[end] - numbers[start]
            while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
                end += 1
        found.append((start, end - start, numbers[start], step))
        start = end
    return found


def along(x: Array, axis: int, first: int, count: int, step: int) -> Array:
    """A view of `count` elements of an axis from `first` on, every step-th, or the first one again and again."""
    before = (slice(None),) * axis
    if step == 0:
        one = x[(*before, slice(first, first + 1))]
        return np.broadcast_to(one, (*x.shape[:axis], count, *x.shape[axis + 1 :]))
    end = first + count * step
    return x[(*before, slice(first, end if end >= 0 else None, step))]


def border(mode: str, size: int, before: int, after: int) -> tuple[Array, Array]:
    """The elements of an axis of `size` that stand before and after it where it is padded, as `numpy.pad` has it."""
    places = np.concatenate([np.arange(-before, 0), np.arange(size, size + after)])
    if mode == "edge":
        places = np.clip(places, 0, size - 1)
    elif mode == "wrap":
        places %= size
    else:  # reflect
        period = max(2 * (size - 1), 1)
        places %= period
        places = np.where(places < size, places, period - places)
    return places[:before], places[before:]
