"""`out=` that shares memory with the arrays that are read: the result is as if it did not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastconv
from fastconv.testing.problems import ConvCase, conv_cases, fill, pool_cases, tiled_cases, transposed_cases
from reliability.board import Outcome, row
from reliability.oracle import Array
from reliability.rows.layouts import same_bits

Call = Callable[[list[Any], Array | None], Array]
# Where `out` begins, as shares of the other array's length; None: the other array lies in reversed order.
PLACES = (0.0, 0.1, 0.5, 0.9, -0.1, -0.5, -0.9, None)


@row(
    "out= overlapping input, weight, bias, residual in every direction, every operation that takes out=",
    "equals the out-of-place result, in out's own buffer",
    quick=40, full=1500, order=130,
)  # fmt: skip
def overlapping_out(count: int) -> Outcome:
    """`count` problems of each operation x every array that is read x every place."""
    outcome = Outcome()
    names: set[str] = set()
    for what, call, arrays in _calls(count):
        name = what.partition(":")[0]
        names.add(name)
        right = call(arrays, None)
        for which, array in enumerate(arrays):
            if array is None or array.size == 0 or right.size == 0:
                continue
            for place in PLACES:
                shared, out = _shared(array, right, place)
                mine = [shared if i == which else a for i, a in enumerate(arrays)]
                got = call(mine, out)
                fine = got is out and same_bits(np.ascontiguousarray(out), right)
                outcome.check(fine, f"{what}, out at {place} of argument {which}")
    outcome.measured = f"{len(names)} operations, {len(PLACES)} places"
    return outcome


def _shared(array: Array, right: Array, place: float | None) -> tuple[Array, Array]:
    """A copy of `array` and an `out` for `right` in one buffer."""
    unit = max(array.itemsize, right.itemsize)
    reversed_order = place is None
    shift = round((place or 0) * array.nbytes / unit) * unit
    before = max(0, -shift)
    raw = np.zeros(before + max(array.nbytes, shift + right.nbytes) + unit, np.uint8)
    shared = raw[before : before + array.nbytes].view(array.dtype).reshape(array.shape)
    if reversed_order:
        shared = shared[(slice(None, None, -1),) * array.ndim]
    shared[...] = array
    start = before + shift
    return shared, raw[start : start + right.nbytes].view(right.dtype).reshape(right.shape)


def _calls(count: int) -> Iterator[tuple[str, Call, list[Any]]]:
    for case in conv_cases(count):
        x, w, b = case.arrays("integers")
        shape = fastconv.conv2d(x, w, **case.options()).shape
        residual = fill(case.rng("residual"), shape, case.dtypes[0], "integers") if case.index % 2 else None
        yield f"conv2d: {case}", _conv2d(case), [x, w, b, residual]
        if case.dtypes[0] == case.dtypes[1]:
            plan = fastconv.plan_conv2d(x.shape, w, b, **case.options())
            yield f"ConvPlan.run: {case}", _run(plan), [x, residual]
        if case.padding in (0, 1) and case.index % 2 and 0 not in case.size:
            options = {"padding": case.padding, "data_format": "NLC" if case.channels_last else "NCL"}
            line, kernel = _flat(case, x, w)
            yield f"conv1d: {case}", _one_dimensional(options, case.groups), [line, kernel, b]
    for case in transposed_cases(count):
        arrays = case.arrays("integers")
        yield f"conv_transpose2d: {case}", _transposed(case), list(arrays)
        if case.batch is not None:
            options = {"groups": case.groups, "data_format": "NLC" if case.channels_last else "NCL"}
            line, kernel = arrays[0].take(0, 1 if case.channels_last else 2), _kernel_row(case, arrays[1])
            yield f"conv_transpose1d: {case}", _transposed_line(options), [line, kernel, arrays[2]]
    for tiled in tiled_cases(count):
        x = fill(tiled.rng("input"), tiled.input_shape, tiled.dtype, "integers")
        w = fill(tiled.rng("weight"), tiled.weight_shape, tiled.dtype, "integers")
        b = fill(tiled.rng("bias"), (tiled.out_channels,), tiled.dtype, "integers") if tiled.with_bias else None
        yield f"tiled_conv2d: {tiled}", _tiled(tiled.options()), [x, w, b]
    for pool in pool_cases(count):
        x = fill(pool.rng("input"), pool.input_shape, pool.dtype)
        options = {**pool.options(), "kernel_size": pool.kernel}
        yield f"max_pool2d: {pool}", _pool(fastconv.max_pool2d, options), [x]
        if pool.dtype.startswith("float"):
            yield f"avg_pool2d: {pool}", _pool(fastconv.avg_pool2d, options), [x]


def _conv2d(case: ConvCase) -> Call:
    return lambda a, out: fastconv.conv2d(*a[:3], residual=a[3], **case.options(), activation=case.activation, out=out)


def _run(plan: fastconv.ConvPlan) -> Call:
    return lambda a, out: plan.run(a[0], out, residual=a[1])


def _kernel_row(case: ConvCase, w: Array) -> Array:
    return w.take(0, 0 if case.channels_last else 2)


def _flat(case: ConvCase, x: Array, w: Array) -> tuple[Array, Array]:
    """The first row of the image and of the kernel, a width that fits."""
    line, kernel = x.take(0, -3 if case.channels_last else -2), _kernel_row(case, w)
    axis = 0 if case.channels_last else 2
    return line, kernel.take(range(min(kernel.shape[axis], case.size[1])), axis)


def _one_dimensional(options: dict[str, Any], groups: int) -> Call:
    return lambda a, out: fastconv.conv1d(*a, **options, groups=groups, out=out)


def _transposed(case: ConvCase) -> Call:
    return lambda a, out: fastconv.conv_transpose2d(*a, **case.options(), out=out)


def _transposed_line(options: dict[str, Any]) -> Call:
    return lambda a, out: fastconv.conv_transpose1d(*a, **options, out=out)


def _tiled(options: dict[str, Any]) -> Call:
    return lambda a, out: fastconv.tiled_conv2d(*a, **options, out=out)


def _pool(function: Any, options: dict[str, Any]) -> Call:
    return lambda a, out: function(a[0], **options, out=out)
