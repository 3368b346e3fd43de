"""Poolings: those of one to three axes by fastconv, the rest by NumPy's views of windows."""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Any

import numpy as np

from ..._core import pooling
from ..._core.arrays import Array
from ..._core.layouts import lies_channels_last
from ..._core.threads import effective
from ..._core.types import FLOATS, SUPPORTED
from ..._core.windows import PoolGeometry, pool_geometry
from ..._core.words import MOST_AXES, Shape
from .registry import Call, operator
from .sums import mean, reduced, summed
from .windows import Window, kernel_of, pooled


def pool_window(call: Call, x: Array) -> Window:
    if x.ndim < 3:
        raise call.error(f"an input of shape {x.shape} has no axes to pool over.")
    window = pooled(call, x.shape[2:], kernel_of(call, x.shape[2:]))
    call.check((*x.shape[:2], *window.output), np.int64 if len(call.node.outputs) > 1 else x.dtype)
    return window


def _result(call: Call, x: Array, window: Window) -> Array:
    shape = (*x.shape[:2], *window.output)
    return (call.empty_channels_last if lies_channels_last(x) else call.empty)(shape, x.dtype)


def _geometry(call: Call, x: Array, window: Window) -> PoolGeometry | None:
    """What `_core.pooling` slides over an input of this shape; None for what it does not take, as padding of more than
    half a window."""
    pairs = zip(window.sides, window.extent, strict=True)
    halves = all(min(sides) >= 0 and max(sides) <= extent // 2 for sides, extent in pairs)
    if not halves or x.ndim - 2 > MOST_AXES or 0 in x.shape or x.dtype not in SUPPORTED:
        return None
    kept: PoolGeometry | None = call.state.get(x.shape)
    if kept is None:
        kept = call.state[x.shape] = pool_geometry(
            x.shape, window.kernel, window.stride, window.sides, window.dilation, _ceiled(window, x.shape[2:]),
            name=call.node.op_type, shown=x.shape,
        )  # fmt: skip
    return kept if kept.output_size == window.output else None


def _ceiled(window: Window, size: tuple[int, ...]) -> bool:
    """Whether windows reach over the end of the padding."""
    return any(
        (count - 1) * stride + extent > length + sum(sides)
        for count, stride, extent, length, sides in zip(
            window.output, window.stride, window.extent, size, window.sides, strict=True
        )
    )


@operator("MaxPool")
def max_pool(call: Call, x: Array) -> Any:
    """The maximum of every window and, if asked for, its place in the whole input."""
    window = pool_window(call, x)
    indexed = len(call.node.outputs) > 1 and bool(call.node.outputs[1])
    by_columns = bool(call.get("storage_order", 0))
    geometry = _geometry(call, x, window)
    if geometry is None:
        return _maximum(call, x, window, indexed, by_columns)
    out = _result(call, x, window)
    places = np.empty(out.shape, np.int64) if indexed else None
    pooling.max_pool(geometry, x, out, places, threads=effective(call.threads))
    if places is not None:
        return out, _whole(places, x, by_columns)
    call.natively()
    return out


def _whole(places: Array, x: Array, by_columns: bool) -> Any:
    """Places in a plane, counted by rows, as places in the whole array."""
    if by_columns and x.ndim > 3:
        places = np.ravel_multi_index(np.unravel_index(places, x.shape[2:]), x.shape[2:], order="F")
    planes = np.arange(x.shape[0] * x.shape[1], dtype=np.int64) * int(np.prod(x.shape[2:]))
    return places + planes.reshape(*x.shape[:2], *(1,) * (x.ndim - 2))


def windows(call: Call, x: Array, window: Window, fill: Any) -> Array:
    """(N, C, outputs..., kernel...): a view of the windows over an input padded with `fill`."""
    count = x.ndim - 2
    widths, cut = [(0, 0), (0, 0)], [slice(None), slice(None)]
    for length, (before, _), extent, stride, output in zip(
        x.shape[2:], window.sides, window.extent, window.stride, window.output, strict=True
    ):
        needed = (output - 1) * stride + extent
        widths.append((max(0, before), max(0, needed - length - before)))
        cut.append(slice(max(0, -before), max(0, -before) + needed))
    call.check([size + sum(width) for size, width in zip(x.shape, widths, strict=True)], x.dtype)
    padded = np.pad(x, widths, constant_values=fill)[tuple(cut)]
    seen = np.lib.stride_tricks.sliding_window_view(padded, window.extent, tuple(range(2, x.ndim)))
    steps = [slice(None, None, stride) for stride in window.stride]
    taps = [slice(None, None, dilation) for dilation in window.dilation]
    return seen[(slice(None), slice(None), *steps, *taps)] if count else seen


def _maximum(call: Call, x: Array, window: Window, indexed: bool, by_columns: bool) -> Any:
    fill = -np.inf if x.dtype.kind == "f" else False if x.dtype == bool else np.iinfo(x.dtype).min
    seen = windows(call, x, window, fill)
    axes = tuple(range(x.ndim, seen.ndim))
    best = seen.max(axis=axes)
    if not indexed:
        return best
    places = np.arange(int(np.prod(x.shape[2:])), dtype=np.int64).reshape(1, 1, *x.shape[2:])
    where = windows(call, places, window, 0)
    flat = seen.reshape(*best.shape, -1)
    chosen = np.take_along_axis(
        np.broadcast_to(where.reshape(1, 1, *best.shape[2:], -1), flat.shape), flat.argmax(-1)[..., None], -1
    )
    return best, _whole(chosen[..., 0], x, by_columns)


@operator("AveragePool")
def average_pool(call: Call, x: Array) -> Any:
    """The mean of every window, over its elements inside the input or, with `count_include_pad`, the padding too."""
    window = pool_window(call, x)
    included = bool(call.get("count_include_pad", 0))
    geometry = _geometry(call, x, window) if set(window.dilation) == {1} and x.dtype in FLOATS else None
    if geometry is not None:
        out = _result(call, x, window)
        pooling.avg_pool(
            geometry, x, out, count_include_pad=included, divisor_override=None, threads=effective(call.threads)
        )  # fmt: skip
        call.natively()
        return out
    sums = windows(call, x, window, 0)
    axes = tuple(range(x.ndim, sums.ndim))
    return (sums.sum(axis=axes, dtype=np.float64) / value_counts(x, window, included)).astype(x.dtype, copy=False)


def value_counts(x: Array, window: Window, included: bool) -> Array:
    """How many elements every window has, axis by axis."""
    counts = np.ones((1,) * (x.ndim - 2))
    for axis, length in enumerate(x.shape[2:]):
        starts = np.arange(window.output[axis]) * window.stride[axis] - window.sides[axis][0]
        taps = starts[:, None] + np.arange(window.kernel[axis]) * window.dilation[axis]
        first, last = (-window.sides[axis][0], length + window.sides[axis][1]) if included else (0, length)
        inside = ((taps >= first) & (taps < last)).sum(axis=1)
        counts = counts * inside.reshape(*(-1 if at == axis else 1 for at in range(x.ndim - 2)))
    return np.maximum(counts, 1)


@operator("LpPool")
def lp_pool(call: Call, x: Array) -> Array:
    """The p-norm of every window."""
    order = call.get("p", 2)
    seen = windows(call, np.abs(x) ** x.dtype.type(order), pool_window(call, x), 0)
    sums = seen.sum(axis=tuple(range(x.ndim, seen.ndim)), dtype=np.float64)
    return np.asarray(sums ** (1 / order)).astype(x.dtype, copy=False)


def _spatial(call: Call, x: Array) -> tuple[int, ...]:
    if x.ndim < 3 or 0 in x.shape[2:]:
        raise call.error(f"an input of shape {x.shape} has nothing to pool over.")
    return tuple(range(2, x.ndim))


@operator("GlobalAveragePool")
def global_average_pool(call: Call, x: Array) -> Array:
    """The mean of every channel."""
    found = _reduced(call, "mean", x)
    return mean(x, _spatial(call, x)) if found is None else found


def _reduced(call: Call, how: str, x: Array) -> Array | None:
    """Every channel reduced natively; None for other types than the computing ones."""
    found = reduced(how, x, _spatial(call, x), call.threads, call)
    if found is not None:
        call.natively()
    return found


@operator("GlobalMaxPool")
def global_max_pool(call: Call, x: Array) -> Array:
    """The maximum of every channel."""
    found = _reduced(call, "max", x)
    return np.asarray(x.max(axis=_spatial(call, x), keepdims=True)) if found is None else found


@operator("GlobalLpPool")
def global_lp_pool(call: Call, x: Array) -> Array:
    """The p-norm of every channel."""
    order = call.get("p", 2)
    found = _reduced(call, {1: "magnitudes", 2: "norm"}[order], x) if order in (1, 2) else None
    if found is not None:
        return found
    sums = summed(np.abs(x) ** x.dtype.type(order), _spatial(call, x), call.threads)
    return np.asarray(sums ** x.dtype.type(1 / order))


@operator("MaxUnpool", shaping=(2,))
def max_unpool(call: Call, x: Array, indices: Array, shape: Array | None = None) -> Array:
    """Every value at the place where its maximum was, zeros elsewhere.

    Places count in the whole result, as those that MaxPool gave do in its input. In ONNX's own test of an
    `output_shape` that is larger than need be they count in the least possible result, which then lies at the start of
    the larger one; that is taken where the places cannot mean anything else.
    """
    window = kernel_of(call, x.shape[2:])
    call.slides((1,) * len(window.stride), [Fraction(1, stride) for stride in window.stride])
    inferred = [
        (length - 1) * stride + kernel - sum(sides)
        for length, stride, kernel, sides in zip(x.shape[2:], window.stride, window.kernel, window.sides, strict=True)
    ]
    least = call.check((*x.shape[:2], *inferred), x.dtype)
    wanted = least if shape is None else call.check(shape.ravel().tolist(), x.dtype)
    if len(wanted) != len(least) or wanted[:2] != least[:2]:
        raise call.error(f"output_shape {wanted} does not fit an input of shape {x.shape}.")
    if indices.shape != x.shape:
        raise call.error(f"indices of shape {indices.shape} do not fit an input of shape {x.shape}.")
    small = _of_the_least(indices, least, wanted, window)
    counted = least if small else wanted
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < prod(counted):
        span = f"{int(indices.min())} to {int(indices.max())}"
        raise call.error(f"indices from {span} point outside a result of shape {counted}.")
    flat = np.zeros(prod(counted), x.dtype)
    flat[indices.ravel()] = x.ravel()
    y = flat.reshape(counted)
    return np.pad(y, [(0, a - b) for a, b in zip(wanted, least, strict=True)]) if small else y


def _of_the_least(indices: Array, least: Shape, wanted: Shape, window: Window) -> bool:
    """Whether places count in the least possible result: each in its own window there, and not so in the wanted one."""
    if least == wanted or not indices.size or any(a < b for a, b in zip(wanted, least, strict=True)):
        return False
    if int(indices.min()) < 0 or int(indices.max()) >= prod(least):  # the largest one decides
        return False
    return _in_windows(indices, least, window) and not _in_windows(indices, wanted, window)


def _in_windows(indices: Array, shape: Shape, window: Window) -> bool:
    """Whether every place in an array of this shape lies in the window that its maximum was taken from."""
    own: tuple[Array, ...] = np.indices(indices.shape, sparse=True)
    places = np.unravel_index(indices, shape)
    starts = (at * stride - sides[0] for at, stride, sides in zip(own[2:], window.stride, window.sides, strict=True))
    return all(np.all(place == at) for place, at in zip(places[:2], own[:2], strict=True)) and all(
        np.all((place >= start) & (place < start + kernel))
        for place, start, kernel in zip(places[2:], starts, window.kernel, strict=True)
    )
