"""Weighted sums along axes, natively: what resizing of floats is."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ... import _native
from ..._core.arrays import Array
from ..._core.threads import effective
from .moving import copied, memory_order, moved, views_as
from .registry import Call

Taps = tuple[Array, Array]  # of every result: places along an axis, int64, and their weights (results, taps)


def blended(call: Call, x: Array, axes: dict[int, Taps]) -> tuple[Array, bool]:
    """x (float32 or float64) with every one of these axes resized; whether natively all the way.

    Two axes that are neighbours in memory are one pass, in which the rows of the first are blended while they are in
    the cache; any other is a pass of its own.
    """
    order = memory_order(x)
    lies = x.transpose(order)
    native = True
    if not lies.flags.c_contiguous:
        lies, native = copied(call, lies)
    given = {order.index(axis): taps for axis, taps in axes.items()}
    passes = _passes(sorted(given))
    for number, places in enumerate(passes):
        shape = list(lies.shape)
        for place in places:
            shape[place] = len(given[place][0])
        if number < len(passes) - 1:
            out = call.empty(shape, x.dtype)
        else:
            back = np.argsort(order)
            wanted = [shape[place] for place in back]
            out = call.result_like(x, wanted).transpose(order)
        native &= _pass(call, out, lies, places, given)
        lies = out
    return lies.transpose(np.argsort(order)), native


def _passes(places: Sequence[int]) -> list[tuple[int, ...]]:
    """The last two axes together if they are neighbours, every other by itself, from the first one on."""
    together = len(places) > 1 and places[-1] == places[-2] + 1
    alone = places[:-2] if together else places
    return [(place,) for place in alone] + ([tuple(places[-2:])] if together else [])


def _pass(call: Call, out: Array, x: Array, places: tuple[int, ...], given: dict[int, Taps]) -> bool:
    """One pass over a dense array; the result may have gaps between its pixels."""
    first, last = places[0], places[-1]
    after = prod(x.shape[last + 1 :])
    rows = columns = None
    if len(places) == 2 or after > 1:
        rows = given[first]
        columns = given[last] if len(places) == 2 else None
        cuts = (first, first + 1, last + 1)
    else:
        columns = given[last]
        cuts = (0, last, last + 1)
    if columns is None:  # pixels that stay: those of the axis behind
        cuts = (first, first + 1, max(first + 1, x.ndim - 1))
    seen = _seen(out, cuts)
    target = call.empty(out.shape, out.dtype) if seen is None else out
    pixels = _seen(target, cuts)
    assert pixels is not None
    source = _seen(x, cuts)
    assert source is not None
    _native.resize(pixels, source, rows, columns, effective(call.threads))
    return True if target is out else moved(call, out, target)


def _seen(x: Array, cuts: tuple[int, int, int]) -> Array | None:
    """x under four axes, cut before these ones of its own; None where that takes a copy, or channels lie apart."""
    a, b, c = cuts
    shape = [prod(part) for part in (x.shape[:a], x.shape[a:b], x.shape[b:c], x.shape[c:])]
    if not views_as(x.shape, x.strides, shape):
        return None
    found = x.reshape(shape)
    return found if shape[3] == 1 or found.strides[3] == x.itemsize else None
