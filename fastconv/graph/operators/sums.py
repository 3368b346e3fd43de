"""Sums, means and extremes along axes: natively where the array is of floats, in sums whose error does not grow."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Final, NamedTuple

import numpy as np

from ... import _native
from ..._core.arrays import Array
from ..._core.steps import TYPES
from ..._core.sums import mean as mean_of
from ..._core.sums import total
from ..._core.threads import effective
from .moving import copied, memory_order
from .registry import Call

# What is done to the results of one group of axes to join those of another.
AGAIN: Final = {
    "sum": "sum", "mean": "mean", "squares": "sum", "norm": "norm", "magnitudes": "sum", "max": "max", "min": "min",
}  # fmt: skip


class Pass(NamedTuple):
    """Neighbouring axes that are reduced together: the array as (outer, reduced, inner), and the result's axes."""

    sizes: tuple[int, int, int]
    result: tuple[int, ...]


@lru_cache(maxsize=256)
def _passes(
    shape: tuple[int, ...], order: tuple[int, ...], axes: tuple[int, ...]
) -> tuple[tuple[int, ...], list[Pass]]:
    """How to reduce axes of an array that lies in an order: the way back to its own, and the passes."""
    lies = [shape[axis] for axis in order]
    left = {order.index(axis) for axis in axes}
    passes = []
    while left:
        last = first = max(left)
        while first - 1 in left or (first and lies[first - 1] == 1):
            first -= 1
        sizes = (prod(lies[:first]), prod(lies[first : last + 1]), prod(lies[last + 1 :]))
        lies[first : last + 1] = [1] * (last + 1 - first)
        passes.append(Pass(sizes, tuple(lies)))
        left -= set(range(first, last + 1))
    return tuple(order.index(axis) for axis in range(len(order))), passes


def reduced(
    how: str, x: Array, axes: tuple[int, ...], threads: int | None = 1, call: Call | None = None
) -> Array | None:
    """`how` (see `_native.reduce`) of x along axes, which stay with length 1; None where it is not done natively.

    Axes that are neighbours in memory are one pass. `call` lends the memory.
    """
    if x.dtype not in TYPES or not axes or not x.size:
        return None
    order = tuple(memory_order(x))
    lies = x.transpose(order)
    if not lies.flags.c_contiguous:
        if call is None:
            return None
        lies = copied(call, lies)[0]
    back, passes = _passes(x.shape, order, axes)
    for sizes, result in passes:
        out = np.empty(result, x.dtype) if call is None else call.empty(result, x.dtype)
        _native.reduce(how, out.reshape(sizes[0], 1, sizes[2]), lies.reshape(sizes), effective(threads))
        how, lies = AGAIN[how], out
    return lies.transpose(back)


def summed(x: Array, axes: tuple[int, ...], threads: int | None = 1) -> Array:
    """The sum over axes, which stay with length 1."""
    found = reduced("sum", x, axes, threads)
    if found is not None:
        return found
    if x.dtype.kind != "f":
        return np.asarray(np.sum(x, axis=axes, dtype=x.dtype, keepdims=True))
    return total(x, sorted(axes), keepdims=True)


def mean(x: Array, axes: tuple[int, ...], threads: int | None = 1) -> Array:
    """The mean over axes, which stay with length 1."""
    found = reduced("mean", x, axes, threads)
    if found is not None:
        return found
    if x.dtype.kind == "f":
        return mean_of(x, sorted(axes), keepdims=True)
    sums = summed(x, axes, threads)
    return np.asarray(np.divide(sums, sums.dtype.type(prod(x.shape[axis] for axis in axes))))
