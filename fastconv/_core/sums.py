"""Sums, means and matrix products of arrays whose error does not grow with how much is summed.

NumPy adds the values of an axis that lies side by side in memory in pairs of pairs, but those of any other axis one
after the other: a mean of 25 million ones in single precision is then 0.67. Here single precision sums in double
where NumPy would not pair, and double precision is laid out so that it does. (The native kernels do the same in
blocks: src/drivers/totals.pxi.)
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FEW = 64  # values whose sum may be a running one
PIECE = 1 << 12  # of the sums of a matrix product


def total(x: Array, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Array:
    """The sum of `x` (float) over an axis, several or all, in its own type.

    Parameters
    ----------
    x : ndarray
        float16, float32 or float64, of any shape.
    axis : int or sequence of int, optional
        All axes by default.
    keepdims : bool
        Leave an axis of 1 in place of each.

    Returns
    -------
    ndarray
        Of the type of `x`.
    """
    return np.asarray(_sums(x, axis, keepdims)).astype(x.dtype, copy=False)


def mean(x: Array, axis: int | Sequence[int] | None = None, keepdims: bool = False) -> Array:
    """The mean of `x` over an axis, several or all; as `total`, and NaN of nothing."""
    sums = np.asarray(_sums(x, axis, keepdims))
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / sums.dtype.type(_terms(x, _axes(x, axis)))).astype(x.dtype, copy=False)


def _axes(x: Array, axis: int | Sequence[int] | None) -> tuple[int, ...]:
    given = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    return tuple(sorted({number % x.ndim for number in given}))


def _terms(x: Array, axes: tuple[int, ...]) -> int:
    return prod(x.shape[number] for number in axes)


def _sums(x: Array, axis: int | Sequence[int] | None, keepdims: bool) -> Any:
    """The sums, still in double precision where they were made in it."""
    axes = _axes(x, axis)
    kept = [size for number, size in enumerate(x.shape) if number not in axes]
    last = axes == tuple(range(len(kept), x.ndim))
    if _terms(x, axes) <= FEW and x.dtype.itemsize >= 4:
        return x.sum(axis=axes, keepdims=keepdims)
    if x.dtype.itemsize < 8 and not (last and x.flags.c_contiguous and x.dtype.itemsize == 4):
        return x.sum(axis=axes, keepdims=keepdims, dtype=np.float64)
    beside: Array = x if last else np.moveaxis(x, axes, range(len(kept), x.ndim))
    sums = np.ascontiguousarray(beside).reshape(*kept, _terms(x, axes)).sum(axis=-1)
    return np.expand_dims(sums, axes) if keepdims else sums


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """`numpy.matmul`; very long sums, which a BLAS makes as a few running ones, a piece after the other."""
    length = a.shape[-1]
    if a.dtype != np.float32 or length < 4 * PIECE:
        return np.asarray(np.matmul(a, b, out=out))
    wide: Any = 0
    for first in range(0, length, PIECE):
        piece = slice(first, first + PIECE)
        wide = wide + np.matmul(a[..., piece], b[piece] if b.ndim == 1 else b[..., piece, :]).astype(np.float64)
    if out is None:
        return np.asarray(wide).astype(np.float32)
    out[...] = wide
    return out
