"""Poolings and their gradients, from a caller's arguments to a plan: `pooled` is their preamble, as `ask.asked`."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from . import remember, threads
from .arrays import INT64, Array, DType, as_array, result_dtype
from .checks import checked_average, checked_gradient
from .contributions import sum_dtype, too_large, within
from .into import adds, into_total
from .later import Later
from .layouts import Layout, destination, empty_activation, layout, lies_channels_last
from .record import NamedTuple
from .types import FLOATS
from .windows import PoolGeometry, pool_geometry
from .words import Shape, flag, shape

if TYPE_CHECKING:
    from . import pooling
else:
    pooling = Later("pooling")

recall: Final = remember.recall


# kernel_size, stride, padding, dilation and ceil_mode, as written.
Windows = tuple[object, object, object, object, object]


def _geometry(windows: Windows, input: Shape, name: str, shown: Shape) -> PoolGeometry:
    """The pooling of an input of this logical shape, or a refusal that shows the caller's."""
    kernel_size, stride, padding, dilation, ceil_mode = windows
    ceil = flag("ceil_mode", ceil_mode)
    key = ("pool", ceil, input, *windows[:4]) if all(map(remember.plain, windows[:4])) else None
    pg: PoolGeometry | None = None if key is None else recall(key)
    if pg is None:
        pg = pool_geometry(input, kernel_size, stride, padding, dilation, ceil, name=name, shown=shown)
        if key is not None:
            remember.keep(key, pg)
    return pg


class Pooled(NamedTuple):
    """A pooling or its gradient with everything checked that all of them have."""

    name: str
    frame: Layout
    geometry: PoolGeometry
    input: Array | None  # logical views; None where the caller gave a shape
    grad_output: Array | None
    batched: bool
    channels_last: bool  # the memory order of the result
    result_shape: Shape  # of the forward call, in the logical order
    threads: int


def pooled(
    name: str,
    axes: int,
    data_format: object,
    windows: Windows,
    input: object,
    num_threads: int | None,
    *,
    gradient: tuple[object] | None = None,
    sized: bool = False,
) -> Pooled:
    """Check what all poolings have; `sized` says that the input is a shape, as the gradient of a mean wants it."""
    frame = layout(data_format, axes)
    own_x = None if sized else as_array("input", input)
    own_dy = None if gradient is None else as_array("grad_output", gradient[0])
    x = dy = None
    if own_x is None:
        shown = shape("input_size", input)
        size, batched = frame.logical_shape("input_size", shown)
    else:
        x, batched = frame.activation("input", own_x)
        size, shown = x.shape, own_x.shape
    pg = _geometry(windows, size, name, shown)
    result_shape = (pg.batch, pg.channels, *pg.output_size)
    if own_dy is not None:
        if own_x is not None:
            result_dtype("grad_output", own_dy, "input", own_x)
        dy = checked_gradient(name, frame, own_dy, result_shape, batched)
    like = dy if x is None else x
    assert like is not None
    return Pooled(
        name, frame, pg, x, dy, batched, frame.channels_last or lies_channels_last(like), result_shape,
        threads.effective(num_threads),
    )  # fmt: skip


def max_pool(
    axes: int,
    input: object,
    kernel_size: object,
    stride: object,
    padding: object,
    dilation: object,
    ceil_mode: object,
    return_indices: object,
    data_format: object,
    num_threads: int | None,
    out: object,
) -> Array | tuple[Array, Array]:
    """The maximum of every window and, if asked for, its place."""
    windows = (kernel_size, stride, padding, dilation, ceil_mode)
    p = pooled(f"max_pool{axes}d", axes, data_format, windows, input, num_threads)
    x = p.input
    assert x is not None
    indexed = flag("return_indices", return_indices)
    target, result, finish = destination(
        p.name, out, p.frame, p.result_shape, x.dtype, p.batched, p.channels_last, (x,)
    )
    where = empty_activation(p.result_shape, INT64, p.channels_last) if indexed else None
    pooling.max_pool(p.geometry, x, target, where, threads=p.threads)
    finish()
    return result if where is None else (result, p.frame.from_logical(where, p.batched))


def avg_pool(
    axes: int,
    input: object,
    kernel_size: object,
    stride: object,
    padding: object,
    ceil_mode: object,
    count_include_pad: object,
    divisor_override: object,
    data_format: object,
    num_threads: int | None,
    out: object,
) -> Array:
    """The mean of every window."""
    windows = (kernel_size, stride, padding, 1, ceil_mode)
    p = pooled(f"avg_pool{axes}d", axes, data_format, windows, input, num_threads)
    x = p.input
    assert x is not None
    include, divisor = checked_average(p.name, x.dtype, "input", count_include_pad, divisor_override)
    target, result, finish = destination(
        p.name, out, p.frame, p.result_shape, x.dtype, p.batched, p.channels_last, (x,)
    )
    pooling.avg_pool(p.geometry, x, target, count_include_pad=include, divisor_override=divisor, threads=p.threads)
    finish()
    return result


def max_pool_gradient(
    axes: int,
    input: object,
    kernel_size: object,
    grad_output: object,
    stride: object,
    padding: object,
    dilation: object,
    ceil_mode: object,
    data_format: object,
    num_threads: int | None,
    out: object,
    accumulate: object,
) -> Array:
    """The gradient of the maximum of every window with respect to the input."""
    windows = (kernel_size, stride, padding, dilation, ceil_mode)
    p = pooled(f"max_pool{axes}d_input", axes, data_format, windows, input, num_threads, gradient=(grad_output,))
    pg, x, dy = p.geometry, p.input, p.grad_output
    assert x is not None and dy is not None
    adds(p.name, out, accumulate)
    dtype = result_dtype("grad_output", dy, "grad_output", dy)
    if dtype not in FLOATS and dy.size:
        most = prod(pg.kernel_size) * max(abs(int(dy.max())), abs(int(dy.min())))
        if most > np.iinfo(INT64).max:
            raise too_large(p.name, INT64)

    where = empty_activation(p.result_shape, INT64, p.channels_last)
    pooling.max_pool(pg, x, empty_activation(p.result_shape, x.dtype, p.channels_last), where, threads=p.threads)
    total = _empty_total(x.shape, dtype, p)
    pooling.max_pool_gradient(pg, dy.astype(total.dtype, copy=False), where, total, threads=p.threads)
    dx = within(p.name, total, dtype).astype(dtype, copy=False)
    return into_total(p.name, out, accumulate, p.frame, dx, p.batched)


def avg_pool_gradient(
    axes: int,
    input_size: object,
    kernel_size: object,
    grad_output: object,
    stride: object,
    padding: object,
    ceil_mode: object,
    count_include_pad: object,
    divisor_override: object,
    data_format: object,
    num_threads: int | None,
    out: object,
    accumulate: object,
) -> Array:
    """The gradient of the mean of every window with respect to the input."""
    windows = (kernel_size, stride, padding, 1, ceil_mode)
    p = pooled(
        f"avg_pool{axes}d_input", axes, data_format, windows, input_size, num_threads, gradient=(grad_output,),
        sized=True,
    )  # fmt: skip
    pg, dy = p.geometry, p.grad_output
    assert dy is not None
    adds(p.name, out, accumulate)
    include, divisor = checked_average(p.name, dy.dtype, "grad_output", count_include_pad, divisor_override)
    total = _empty_total((pg.batch, pg.channels, *pg.input_size), dy.dtype, p)
    pooling.avg_pool_gradient(
        pg, dy.astype(total.dtype, copy=False), total, count_include_pad=include, divisor_override=divisor,
        threads=p.threads,
    )  # fmt: skip
    return into_total(p.name, out, accumulate, p.frame, total.astype(dy.dtype, copy=False), p.batched)


def _empty_total(shape: Shape, dtype: DType, p: Pooled) -> Array:
    """What the contributions to a gradient of this type are summed in."""
    return empty_activation(shape, sum_dtype(dtype), p.channels_last)
