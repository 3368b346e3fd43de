"""Elements picked, scattered, sorted and counted."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ... import _native
from ..._core.arrays import Array
from ..._core.steps import TYPES
from ..._core.threads import effective
from .moving import copied, moved
from .registry import Call, operator


@operator("Slice", as_stored=True, shaping=(1, 2, 3, 4))
def slice_(
    call: Call, x: Array, starts: Array | None = None, ends: Array | None = None, axes: Array | None = None,
    steps: Array | None = None,
) -> Array:  # fmt: skip
    """From start to end in steps along some axes; up to operator set 9 these are attributes."""
    first, last = call.numbers("starts", starts), call.numbers("ends", ends)
    if first is None or last is None or len(first) != len(last):
        raise call.error(f"starts {first} and ends {last} are not equally many.")
    chosen = call.numbers("axes", axes, list(range(len(first)))) or []
    by = [1] * len(first) if steps is None else [int(step) for step in steps.ravel().tolist()]
    if len(chosen) != len(first) or len(by) != len(first) or 0 in by:
        raise call.error(f"axes {chosen}, steps {by} and starts {first} do not fit each other.")
    where = [call.from_front(axis, x.ndim) for axis in chosen]
    if len(set(where)) < len(where):
        raise call.error(f"axes {chosen} name an axis twice.")
    cuts = [slice(None)] * x.ndim
    for axis, start, end, step in zip(where, first, last, by, strict=True):
        cuts[axis] = cut(x.shape[axis], start, end, step)
    return x[tuple(cuts)]


def cut(size: int, start: int, end: int, step: int) -> slice:
    """A slice as the standard clamps it, not Python: backwards, a start before the first element is the first one."""
    start, end = (place + size if place < 0 else place for place in (start, end))
    least, most = (0, size) if step > 0 else (-1, size - 1)  # of the end
    start = min(max(start, 0), most)
    end = min(max(end, least), most)
    if (end - start) * step <= 0 or not size:
        return slice(0, 0)
    return slice(start, None if end < 0 else end, step)


def indices_of(call: Call, indices: Array, size: int) -> Array:
    """Indices counted from the front, refused where they point outside."""
    if indices.dtype.kind not in "iu":
        raise call.error(f"indices must be integers, but got {indices.dtype}.")
    if indices.size and (int(indices.min()) < -size or int(indices.max()) >= size):
        span = f"{int(indices.min())} to {int(indices.max())}"
        raise call.error(f"indices from {span} point outside an axis of {size}.")
    return np.where(indices < 0, indices + size, indices).astype(np.int64, copy=False)


@operator("Gather", as_stored=True)
def gather(call: Call, x: Array, indices: Array) -> Array:
    """Slices along an axis."""
    if not x.ndim:
        raise call.error("its input has no axes.")
    axis = call.axis(x.ndim)
    shape = call.check((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.dtype)
    places = indices_of(call, indices, x.shape[axis])
    if x.dtype.hasobject:
        return np.take(x, places, axis)
    if not indices.ndim and call.is_constant(1):
        return x[(slice(None),) * axis + (int(places),)]
    out = call.ordered_like(x, shape) if indices.ndim == 1 else call.empty(shape, x.dtype)
    flat = out.reshape(*x.shape[:axis], places.size, *x.shape[axis + 1 :])
    if moved(call, flat, x, (*(None,) * axis, places.ravel())) and call.is_constant(1):
        call.natively()
    return out


@operator("GatherElements", as_stored=True)
def gather_elements(call: Call, x: Array, indices: Array) -> Array:
    """One element for every index, along an axis."""
    axis = call.axis(x.ndim)
    if indices.ndim != x.ndim:
        raise call.error(f"indices of shape {indices.shape} do not fit an input of shape {x.shape}.")
    return x[_grid(call, x, indices, axis)]


def _grid(call: Call, x: Array, indices: Array, axis: int) -> tuple[Array, ...]:
    """Where each index points: its own place, but for one axis."""
    if any(a > b for at, (a, b) in enumerate(zip(indices.shape, x.shape, strict=True)) if at != axis):
        raise call.error(f"indices of shape {indices.shape} reach outside an input of shape {x.shape}.")
    places: list[Any] = list(np.indices(indices.shape, sparse=True))
    places[axis] = indices_of(call, indices, x.shape[axis])
    return tuple(places)


@operator("GatherND", as_stored=True)
def gather_nd(call: Call, x: Array, indices: Array) -> Any:
    """Slices at positions; the first `batch_dims` axes are shared."""
    shared = int(call.get("batch_dims", 0))
    places = _positions(call, x, indices, shared)
    grid: tuple[Array, ...] = tuple(np.indices(indices.shape[:shared], sparse=True))
    behind = indices.ndim - 1 - shared
    batch = [place.reshape(*place.shape, *(1,) * behind) for place in grid]
    return x[(*batch, *places)]


def _positions(call: Call, x: Array, indices: Array, shared: int = 0) -> list[Array]:
    depth = indices.shape[-1] if indices.ndim else 0
    if not indices.ndim or shared + depth > x.ndim or not 0 <= shared < indices.ndim:
        raise call.error(f"indices of shape {indices.shape} do not fit an input of shape {x.shape}.")
    return [indices_of(call, indices[..., at], x.shape[shared + at]) for at in range(depth)]


REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


@operator("ScatterElements", "Scatter")
def scatter_elements(call: Call, x: Array, indices: Array, updates: Array) -> Array:
    """A copy with elements replaced, or combined by `reduction`."""
    if indices.ndim != x.ndim or updates.shape != indices.shape:
        raise call.error(f"indices {indices.shape} and updates {updates.shape} do not fit an input of shape {x.shape}.")
    return _scattered(call, x, _grid(call, x, indices, call.axis(x.ndim)), updates)


@operator("ScatterND")
def scatter_nd(call: Call, x: Array, indices: Array, updates: Array) -> Array:
    """A copy with slices replaced, or combined by `reduction`."""
    return _scattered(call, x, tuple(_positions(call, x, indices)), updates)


def _scattered(call: Call, x: Array, where: tuple[Array, ...], updates: Array) -> Array:
    result = x.copy()
    how = call.get("reduction", "none")
    if how == "none":
        result[where] = updates
    elif how in REDUCTIONS:
        REDUCTIONS[how].at(result, where, updates)
    else:
        raise call.error(f"reduction {how!r} is none of none, {', '.join(REDUCTIONS)}.")
    return result


@operator("OneHot", shaping=(1,))
def one_hot(call: Call, indices: Array, depth: Array, values: Array) -> Any:
    """A new axis of `depth`: values[1] at the index, values[0] elsewhere."""
    count = int(depth.ravel()[0])
    axis = call.from_front(int(call.get("axis", -1)), indices.ndim + 1)
    call.check((*indices.shape, count), values.dtype)
    numbers = indices.astype(np.int64)
    numbers = np.where(numbers < 0, numbers + count, numbers)
    hot = np.expand_dims(numbers, axis) == np.arange(count).reshape(-1, *(1,) * (indices.ndim - axis))
    return np.where(hot, values[1], values[0]).astype(values.dtype, copy=False)


@operator("NonZero", shaping="all")
def non_zero(call: Call, x: Array) -> Array:
    """The positions of all elements that are not zero, an axis a row."""
    return np.array(np.nonzero(np.atleast_1d(x)), np.int64)


@operator("Compress", as_stored=True, shaping="all")
def compress(call: Call, x: Array, condition: Array) -> Array:
    """The slices, or elements, for which a condition holds."""
    axis = call.get("axis")
    flat = condition.ravel().astype(bool)
    return np.compress(flat, x, None if axis is None else call.from_front(axis, x.ndim))


@operator("TopK", shaping=(1,))
def top_k(call: Call, x: Array, k: Array | None = None) -> tuple[Array, Array]:
    """The k largest (or smallest) along an axis, sorted, and where they are; of equals the first comes first."""
    axis = call.axis(x.ndim, -1)
    count = (call.numbers("k", k) or [0])[0]
    if not 0 <= count <= x.shape[axis]:
        raise call.error(f"k = {count} of an axis of {x.shape[axis]}.")
    if call.get("largest", 1):
        order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis, kind="stable")
    order = np.take(order, np.arange(count), axis)
    return np.take_along_axis(x, order, axis), order.astype(np.int64)


def _extreme(call: Call, x: Array, largest: bool) -> Array:
    axis = call.axis(x.ndim)
    if not x.size:
        raise call.error(f"its input of shape {x.shape} has no elements.")
    last = bool(call.get("select_last_index", 0))
    out = call.empty((*x.shape[:axis], 1, *x.shape[axis + 1 :]), np.int64)
    seen = x if x.flags.c_contiguous or x.dtype not in TYPES else copied(call, x)[0]
    if x.dtype in TYPES and x.shape[axis] < 1 << 31:
        sizes = (prod(x.shape[:axis]), x.shape[axis], prod(x.shape[axis + 1 :]))
        _native.extreme_places(
            "max" if largest else "min", last, out.reshape(sizes[0], 1, sizes[2]), seen.reshape(sizes),
            effective(call.threads),
        )  # fmt: skip
        call.natively()
    else:
        find = np.argmax if largest else np.argmin
        found = x.shape[axis] - 1 - find(np.flip(x, axis), axis) if last else find(x, axis)
        out[...] = np.expand_dims(found, axis)
    return out if call.get("keepdims", 1) else out.reshape([*x.shape[:axis], *x.shape[axis + 1 :]])


operator("ArgMax")(lambda call, x: _extreme(call, x, True))
operator("ArgMin")(lambda call, x: _extreme(call, x, False))


def _running(call: Call, x: Array, axis: Array, add: bool) -> Array:
    where = call.from_front(int(axis.ravel()[0]), x.ndim)
    if call.get("reverse", 0):
        x = np.flip(x, where)
    wide = np.float64 if x.dtype.kind == "f" else x.dtype  # each value is a sum of its own, whose error must not grow
    total = np.asarray((np.cumsum if add else np.cumprod)(x, where, dtype=wide)).astype(x.dtype, copy=False)
    if call.get("exclusive", 0):
        total = np.roll(total, 1, where)
        first: list[Any] = [slice(None)] * x.ndim
        first[where] = slice(0, 1)
        total[tuple(first)] = 0 if add else 1
    return np.flip(total, where) if call.get("reverse", 0) else total


operator("CumSum")(lambda call, x, axis: _running(call, x, axis, True))
operator("CumProd")(lambda call, x, axis: _running(call, x, axis, False))


@operator("ReverseSequence", as_stored=True)
def reverse_sequence(call: Call, x: Array, lengths: Array) -> Array:
    """The first elements of every sequence of a batch in reverse."""
    time, batch = int(call.get("time_axis", 0)), int(call.get("batch_axis", 1))
    if x.ndim < 2 or sorted((time, batch)) != [0, 1] or lengths.shape != (x.shape[batch],):
        raise call.error(f"lengths of shape {lengths.shape} do not fit an input of shape {x.shape}.")
    moved = x if batch == 0 else x.swapaxes(0, 1)
    result = moved.copy()
    for row, count in enumerate(lengths.tolist()):
        if not 0 <= count <= moved.shape[1]:
            raise call.error(f"a sequence of {count} in an axis of {moved.shape[1]}.")
        result[row, :count] = moved[row, :count][::-1]
    return result if batch == 0 else result.swapaxes(0, 1)


@operator("Unique", since=11, as_stored=True, shaping="all")
def unique(call: Call, x: Array) -> tuple[Array, ...]:
    """What occurs, once each: in order, or in the order in which it occurs first; where first, which, how often."""
    axis = call.get("axis")
    axis = None if axis is None else call.from_front(int(axis), x.ndim)
    found, first, inverse, counts = np.unique(
        x, return_index=True, return_inverse=True, return_counts=True, axis=axis
    )  # fmt: skip
    inverse = inverse.ravel()
    if not call.get("sorted", 1):
        order = np.argsort(first, kind="stable")
        found = np.take(found, order, 0 if axis is None else axis)
        first, counts = first[order], counts[order]
        inverse = np.argsort(order)[inverse]
    return (found, *(numbers.astype(np.int64) for numbers in (first, inverse, counts)))[: len(call.node.outputs)]
