"""What `fastconv.graph.integers` makes of quantised operators: bytes in, bytes out, each computation in one place.

`sums_of` and plans add up exactly; `Requantise` takes sums to bytes, `to_bytes` floats, and `looked_up` is any function
of a single byte. Each is a function on arrays that native code may stand behind.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np

from ..._core.arrays import Array
from ..._core.ask_quantised import dense_plan
from ..._core.geometry import conv_geometry
from ..._core.layouts import INWARD, OUTWARD
from ..._core.quantised import Added, More, QuantisedPlan, Requantise
from ..._core.threads import effective
from . import lines
from .convolution import output_shape, require_axes
from .moving import memory_order, reshaped
from .pooling import pool_window, value_counts
from .registry import INTERNAL, Call, operator
from .windows import Window, kernel_of

TABLE: Final = 256  # entries: one a byte, in the order of its bits


class Grid(NamedTuple):
    """The real numbers that the bytes of a value stand for: scale * (q - zero)."""

    scale: np.float32
    zero: int
    dtype: np.dtype[Any]

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the largest integer."""
        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max)

    def all(self) -> Array:
        """Every byte, in the order of its bits."""
        return np.arange(TABLE, dtype=np.uint8).view(self.dtype)

    def table(self) -> Array:
        """What every byte stands for, as DequantizeLinear says it."""
        return (self.all().astype(np.float32) - np.float32(self.zero)) * self.scale

    def nearest(self, values: Array) -> Array:
        """The bytes of real numbers, as QuantizeLinear says it."""
        out = np.empty(values.shape, self.dtype)
        to_bytes(np.array(values, np.float32), self, *self.limits, out)
        return out


def grid_of(scale: Array, zero: Array | None, kind: np.dtype[Any]) -> Grid | None:
    """One scale and zero point for all of a value of 8 bits; None for what is more than that."""
    if scale.size != 1 or scale.dtype != np.float32 or kind.name not in ("int8", "uint8"):
        return None
    if zero is not None and (zero.size != 1 or zero.dtype != kind):
        return None
    return Grid(scale.reshape(-1)[0], 0 if zero is None else int(zero.reshape(-1)[0]), kind)


# ---- the computations ------------------------------------------------------------------------------------------------


def looked_up(x: Array, table: Array, out: Array) -> None:
    """out = table[x], by the bits of x."""
    order = memory_order(x)
    np.take(table, x.transpose(order).view(np.uint8), out=out.transpose(order), mode="clip")


def to_floats(x: Array, grid: Grid, out: Array) -> Array:
    """out = scale * (x - zero), as DequantizeLinear computes it."""
    np.subtract(x, np.float32(grid.zero), out=out, dtype=np.float32, casting="unsafe")
    return np.multiply(out, grid.scale, out=out)


def to_bytes(values: Array, grid: Grid, low: int, high: int, out: Array) -> None:
    """out = clip(rint(values / scale) + zero, low, high), as QuantizeLinear computes it; `values` are used up."""
    np.divide(values, grid.scale, out=values)
    np.rint(values, out=values)
    np.fmax(values, np.float32(low - grid.zero), out=values)  # what is no number becomes the least
    np.fmin(values, np.float32(high - grid.zero), out=values)
    np.add(values, np.float32(grid.zero), out=values)
    np.copyto(out, values, casting="unsafe")


def sums_of(x: Array, axes: tuple[int, ...], zero: int) -> tuple[Array, int]:
    """The sums of x - zero along some axes, kept as of length 1, and how many values each has."""
    count = int(np.prod([x.shape[axis] for axis in axes]))
    return np.add.reduce(x, axis=axes, dtype=np.int32, keepdims=True) - np.int32(zero * count), count


BINARY: Final[dict[str, Callable[..., Any]]] = {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Max": np.maximum, "Min": np.minimum,
}  # fmt: skip


# ---- products --------------------------------------------------------------------------------------------------------


def _scaled(sums: Array, scale: Array, axis: int, out: Array) -> None:
    """out = float32(sums) * scale, a channel or all."""
    np.multiply(sums, scale.reshape(-1, *(1,) * (sums.ndim - 1 - axis % sums.ndim)), out=out, casting="unsafe")


@operator("QConv", domain=INTERNAL, as_stored=True)
def q_conv(call: Call, x: Array, w: Array, b: Array | None = None, other: Array | None = None) -> Any:
    """A convolution of bytes; to bytes, or to floats where the attribute `requantise` is None.

    Bytes become those of a `table` where there is one; those of another value are added where `added` has the grids of
    both and of the sum, and its limits.
    """
    plan = call.state.get(x.shape)
    if plan is None:
        plan = call.state[x.shape] = _convolution(call, x, w, b)
    requantised, table = call.get("requantise"), call.get("table")
    shape, last = (x.shape[0], w.shape[0], *plan.geometry.output_size), OUTWARD[x.ndim]
    call.macs = prod(shape) * prod(w.shape[1:])
    if requantised is None:
        out = call.empty_channels_last(shape, np.float32)
        sums = call.pool.empty(out.transpose(last).shape, np.dtype(np.int32))
        _scaled(plan.run(x.transpose(last), sums), call.get("scale"), -1, out.transpose(last))
        return out
    out = call.empty_channels_last(shape, plan.dtype if table is None else table.dtype)
    given, to = x.transpose(last), out.transpose(last).view(plan.dtype)
    if table is None and other is None:
        plan.run(given, to)
        if plan.natively(given, to):
            call.natively()
        return out
    if plan.adds and to.strides[-1] == 1 and (other is None or _lies_alike(other, out)):
        added = None if other is None else _added(*call.get("added"))
        bits = None if table is None else table.view(np.uint8)
        plan.run(given, to, More(bits, None if other is None else other.transpose(last), added))
        call.natively()
        return out
    plan.run(given, to)
    if table is not None:
        looked_up(out.view(plan.dtype), table, out)
    return out if other is None else _summed_apart(call, out, other)


def _added(own: Grid, other: Grid, grid: Grid, low: int, high: int) -> Added:
    """For a plan."""
    scales = float(own.scale), own.zero, float(other.scale), other.zero, float(grid.scale), grid.zero
    return Added(*scales, low, high, grid.dtype == np.int8)


def _lies_alike(other: Array, out: Array) -> bool:
    """Whether a residual lies so that it is added while the result, channels last, is in the cache."""
    return other.shape == out.shape and other.dtype == out.dtype and other.strides[1] == 1


def _summed_apart(call: Call, a: Array, b: Array) -> Array:
    """The residual of another shape, or that lies otherwise."""
    first, second, grid, low, high = call.get("added")
    shape = call.check(np.broadcast_shapes(a.shape, b.shape), np.float32)
    wide = call.like(np.broadcast_to(a, shape), np.float32)
    np.add(to_floats(a, first, call.like(a, np.float32)), to_floats(b, second, call.like(b, np.float32)), out=wide)
    out = call.empty_channels_last(shape, grid.dtype) if len(shape) == a.ndim else call.empty(shape, grid.dtype)
    to_bytes(wide, grid, low, high, out)
    return out


def _convolution(call: Call, x: Array, w: Array, b: Array | None) -> QuantisedPlan:
    """The plan for inputs of this shape."""
    window = kernel_of(call, require_axes(call, x, w), w.shape[2:])
    output_shape(call, x, w, window)
    g = conv_geometry(
        x.shape, w.shape, window.stride, window.sides, window.dilation, call.get("group", 1), name="QLinearConv"
    )  # fmt: skip
    plan = QuantisedPlan(
        g, w, call.get("w_zero"), x.dtype, call.get("x_zero"), b, call.get("requantise"),
        threads=effective(call.threads), data_format="channels_last", nearly=call.get("nearly", False),
    )  # fmt: skip
    call.describe(f"{plan.kind} in {x.dtype}", plan.packed_bytes)
    return plan


@operator("QDense", domain=INTERNAL, as_stored=True)
def q_dense(call: Call, x: Array, w: Array, b: Array | None = None) -> Any:
    """Rows of bytes times a matrix, (inputs, outputs), or transposed; results as of QConv."""
    weight = w if call.get("transposed") else w.T
    outputs, inputs = weight.shape
    if not x.ndim or x.shape[-1] != inputs:
        raise call.error(f"inputs of shape {x.shape} and {w.shape} have no product.")
    requantised, rows = call.get("requantise"), x.size // inputs if inputs else 0
    kind = np.dtype(np.float32) if requantised is None else requantised.dtype
    out = call.empty(call.check((*x.shape[:-1], outputs), kind), kind)
    if not rows or not outputs:
        out[...] = 0
        return out
    plan = call.state.get(rows)
    if plan is None:
        plan = call.state[rows] = dense_plan(
            rows, weight, call.get("w_zero"), x.dtype, call.get("x_zero"), b, requantised, effective(call.threads)
        )
        call.describe(f"1 x 1 convolution in {x.dtype}", plan.packed_bytes)
    call.macs = rows * weight.size
    given = reshaped(call, x, (1, rows, inputs))
    if requantised is not None:
        plan.run(given, out.reshape(1, rows, outputs))
        if plan.natively(given, out.reshape(1, rows, outputs)):
            call.natively()
        return out
    sums = call.pool.empty((1, rows, outputs), np.dtype(np.int32))
    _scaled(plan.run(given, sums), call.get("scale"), -1, out.reshape(1, rows, outputs))
    return out


# ---- everything else -------------------------------------------------------------------------------------------------


@operator("QTable", domain=INTERNAL, as_stored=True)
def q_table(call: Call, x: Array, table: Array) -> Any:
    """Any function of a byte."""
    out = call.result_like(x, x.shape, table.dtype)
    if not lines.look_up(call, x, table, out):
        looked_up(x, table, out)
    call.describe("table")
    return out


@operator("QBinary", domain=INTERNAL, as_stored=True)
def q_binary(call: Call, a: Array, b: Array) -> Any:
    """Two values combined: dequantised, the operator `does`, quantised; every step is the standard's."""
    first, second, grid = call.get("a"), call.get("b"), call.get("grid")
    shape = call.check(np.broadcast_shapes(a.shape, b.shape), np.float32)
    model = a if a.shape == shape else b
    out = call.result_like(model, shape, grid.dtype)
    limits = call.get("low"), call.get("high")
    call.describe("bytes")
    added = {"Add": second, "Sub": second._replace(scale=-second.scale)}.get(call.get("does"))
    if added is not None and lines.add(call, a, b, first, added, grid, limits, out):
        return out
    if call.get("does") == "Mul" and (
        lines.scale(call, a, b, first, second, grid, limits, out)
        or lines.scale(call, b, a, second, first, grid, limits, out)
    ):
        return out
    wide = call.ordered_like(model, shape, np.float32)
    left = to_floats(a, first, wide if a.shape == shape else call.like(a, np.float32))
    right = to_floats(b, second, call.like(b, np.float32))
    BINARY[call.get("does")](left, right, out=wide)
    to_bytes(wide, grid, *limits, out)
    return out


@operator("QMean", domain=INTERNAL, as_stored=True)
def q_mean(call: Call, x: Array) -> Any:
    """The mean along axes (those of the image unless `axes` says which), of exact sums."""
    given = call.get("axes")
    axes = tuple(range(2, x.ndim)) if given is None else tuple(call.from_front(axis, x.ndim) for axis in given)
    if not x.ndim or any(not x.shape[axis] for axis in axes):
        raise call.error(f"an input of shape {x.shape} has nothing to take the mean of.")
    grid, own = call.get("x"), call.get("grid")
    call.describe("bytes")
    if axes == tuple(range(2, x.ndim)) and call.get("keepdims", 1):
        factor = float(_mean_factor(grid, own, np.prod(x.shape[2:]))[0])
        made = lines.mean(call, x, factor, grid.zero, own, (call.get("low"), call.get("high")))
        if made is not None:
            return made
    sums, count = sums_of(x, axes, grid.zero)
    y = Requantise(_mean_factor(grid, own, count), own.zero, call.get("low"), call.get("high"), own.dtype)(sums, 0)
    return y if call.get("keepdims", 1) else y.reshape([n for at, n in enumerate(x.shape) if at not in axes])


def _mean_factor(grid: Grid, own: Grid, count: Any) -> Array:
    """What takes a sum of so many bytes to the result's."""
    factor = np.float64(grid.scale) / (np.float64(own.scale) * np.asarray(count, np.float64))
    return np.asarray(factor.astype(np.float32)).reshape(-1)


@operator("QAveragePool", domain=INTERNAL, as_stored=True)
def q_average_pool(call: Call, x: Array) -> Any:
    """The mean of every window: a depthwise convolution with ones, whose padding adds nothing."""
    ready = call.state.get(x.shape)
    if ready is None:
        ready = call.state[x.shape] = _averaged(call, x)
    plan, factors = ready
    last, grid = OUTWARD[x.ndim], call.get("grid")
    shape = (*x.shape[:2], *plan.geometry.output_size)
    out = call.empty_channels_last(shape, grid.dtype)
    if factors is None:
        plan.run(x.transpose(last), out.transpose(last))
        if plan.natively(x.transpose(last), out.transpose(last)):
            call.natively()
        return out
    values = plan.run(x.transpose(last)).transpose(INWARD[x.ndim]) * factors
    to_bytes(values, grid._replace(scale=np.float32(1)), call.get("low"), call.get("high"), out)
    return out


def _averaged(call: Call, x: Array) -> tuple[QuantisedPlan, Array | None]:
    """The plan, and where windows have different counts of values the factor of each."""
    window: Window = pool_window(call, x)
    grid, own, channels = call.get("x"), call.get("grid"), x.shape[1]
    counts = value_counts(x, window, bool(call.get("count_include_pad", 0)))
    same = counts.size == 0 or bool(np.all(counts == counts.flat[0]))
    sides = tuple(
        (before, max(after, (out - 1) * step + reach - n - before))
        for n, (before, after), out, step, reach in zip(
            x.shape[2:], window.sides, window.output, window.stride, window.extent, strict=True
        )
    )
    weight = np.ones((channels, 1, *window.kernel), np.int8)
    g = conv_geometry(x.shape, weight.shape, window.stride, sides, window.dilation, channels, name="AveragePool")
    factor = _mean_factor(grid, own, counts.flat[0] if same else counts)
    made = Requantise(factor, own.zero, call.get("low"), call.get("high"), own.dtype) if same else None
    plan = QuantisedPlan(
        g._replace(output_size=window.output), weight, np.zeros(1, np.int8), x.dtype, grid.zero, None, made,
        threads=effective(call.threads), data_format="channels_last",
    )  # fmt: skip
    call.describe(f"{plan.kind} in {x.dtype}")
    return plan, None if same else factor.reshape(1, 1, *window.output)
