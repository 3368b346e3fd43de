"""Pooling on validated arrays in the logical order (batch, channel, *size), whatever their strides."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import prod

import numpy as np

from .. import _native
from ..errors import ConvTypeError
from .methods.method import LONG_SUM
from .operands import Array
from .passes import Triple, triple
from .record import NamedTuple
from .types import FLOATS, STORAGE
from .windows import PoolGeometry


class Window(NamedTuple):
    """What a pooling slides over its input: planes, rows and columns."""

    kernel: Triple
    stride: Triple
    padding: Triple  # before
    dilation: Triple
    limit: Triple  # the end of the padded input
    include_pad: bool
    divisor: int  # 0: as many values as the window has


@lru_cache(maxsize=256)
def _window(pg: PoolGeometry, include: bool, divisor: int) -> Window:
    def lifted(sizes: Iterable[int], missing: int) -> Triple:
        own = tuple(sizes)
        return triple(((missing,) * (3 - len(own))) + own)

    limits = (size + after for size, (_, after) in zip(pg.input_size, pg.padding, strict=True))
    return Window(
        lifted(pg.kernel_size, 1), lifted(pg.stride, 1), lifted((before for before, _ in pg.padding), 0),
        lifted(pg.dilation, 1), lifted(limits, 1), include, divisor,
    )  # fmt: skip


def _pool(
    kind: str, pg: PoolGeometry, x: Array, y: Array, indices: Array | None, include: bool, divisor: int, threads: int,
    low: int = 0,
) -> None:  # fmt: skip
    team = _native.threads_for(4 * max(x.size, y.size), threads)
    _native.pool(kind, STORAGE[x.dtype], x, y, indices, _window(pg, include, divisor), team, low)


def _pool_gradient(
    kind: str, pg: PoolGeometry, dy: Array, out: Array, indices: Array | None, include: bool, divisor: int, threads: int
) -> None:
    """Every value of `dy` to the pixels of its window; where very many windows may meet a pixel, in double precision
    with what the sums round off beside them, an image's plane after the other."""
    if out.dtype not in FLOATS or windows_of_a_pixel(pg) < LONG_SUM:
        out[...] = 0
        _pool(kind, pg, dy, out, indices, include, divisor, threads)
        return
    for image, channel in np.ndindex(*out.shape[:2]):
        one = (slice(image, image + 1), slice(channel, channel + 1))
        wide = np.zeros((2, 1, *out.shape[2:]))
        index = None if indices is None else indices[one]
        _pool(kind, pg, dy[one].astype(np.float64), wide[:1], index, include, divisor, threads, wide.strides[0])
        with np.errstate(invalid="ignore"):
            both = wide[0] + wide[1]
        out[one] = np.where(np.isnan(both), wide[0], both)  # an infinite sum rounds off NaN


def windows_of_a_pixel(pg: PoolGeometry) -> int:
    """The most windows that a pixel of the input may lie in."""
    axes = zip(pg.kernel_size, pg.stride, pg.output_size, strict=True)
    return prod(min(-(-kernel // stride), outputs) for kernel, stride, outputs in axes)


def max_pool(pg: PoolGeometry, input: Array, out: Array, indices: Array | None, *, threads: int = 1) -> None:
    """Maximum over every window; `indices` receives the flat position in the input of the first maximum."""
    _pool("max", pg, input, out, indices, False, 0, threads)


def max_pool_gradient(pg: PoolGeometry, grad_output: Array, indices: Array, out: Array, *, threads: int = 1) -> None:
    """Every gradient goes to the position of its maximum."""
    _pool_gradient("max_gradient", pg, grad_output, out, indices, False, 0, threads)


def avg_pool(
    pg: PoolGeometry, input: Array, out: Array, *, count_include_pad: bool, divisor_override: int | None,
    threads: int = 1,
) -> None:  # fmt: skip
    """Mean over every window."""
    _refuse_integer_average(input)
    _pool("avg", pg, input, out, None, count_include_pad, divisor_override or 0, threads)


def avg_pool_gradient(
    pg: PoolGeometry, grad_output: Array, out: Array, *, count_include_pad: bool, divisor_override: int | None,
    threads: int = 1,
) -> None:  # fmt: skip
    """Every gradient is shared equally by its window."""
    _refuse_integer_average(grad_output)
    _pool_gradient("avg_gradient", pg, grad_output, out, None, count_include_pad, divisor_override or 0, threads)


def _refuse_integer_average(array: Array) -> None:
    if array.dtype not in FLOATS:
        raise ConvTypeError(
            f"input of an average pooling must be floating point, but got {array.dtype}: a mean of integers is no "
            "integer. Convert with .astype('float32')."
        )
