"""Kernels that are a product of kernels of one axis each, found by a cross: a column, and a row through its largest
element, whose product must be the kernel to a few roundings of every element."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from .along import along
from .cut import lowest_bit
from .types import Array

FEWEST: Final = 25  # elements of a kernel from which on one pass an axis costs less than the sum
ALIKE: Final = 4 * float(np.finfo(np.float64).eps)  # of an element, which rounding the product and the factors may cost


def factors(kernel: Array) -> list[Array] | None:
    """Kernels of one axis, float64, whose product is `kernel`; None where it is none.

    Every element of the product is right to 4 eps, so that sums by the factors keep the bound of the plain sum,
    (n + 2) u S, for any kernel of 25 elements and more. Of integers times a power of two the factors are exact, and so
    what is exact in plain sums stays exact.
    """
    w = kernel.astype(np.float64)
    if not (np.isfinite(w).all() and w.any()):
        return None
    found, rest = [], w
    while rest.ndim > 1:
        matrix = rest.reshape(len(rest), -1)
        i, j = np.unravel_index(np.argmax(np.abs(matrix)), matrix.shape)
        found.append(matrix[:, j] / matrix[i, j])
        rest = matrix[i].reshape(rest.shape[1:])
    found.append(rest)
    product: Array = found[0]
    for one in found[1:]:
        product = np.multiply.outer(product, one)
    if not (np.abs(product - w) <= ALIKE * np.abs(w)).all():
        return None
    return _whole(w) or found


def _whole(w: Array) -> list[Array] | None:
    """The factors without a rounding, where all elements are multiples of a number by which they are small integers."""
    unit = lowest_bit(w)
    if not unit or np.abs(w).max() / unit >= 2.0**53:
        return None
    found, rest = [], (w / unit).astype(np.int64)
    while rest.ndim > 1:
        matrix = rest.reshape(len(rest), -1)
        i, j = np.unravel_index(np.argmax(np.abs(matrix)), matrix.shape)
        row = matrix[i] // np.gcd.reduce(matrix[i])
        column = matrix[:, j] // row[j]
        if not (np.multiply.outer(column, row) == matrix).all():
            return None
        found.append(column.astype(np.float64))
        rest = row.reshape(rest.shape[1:])
    found.append(rest * unit)
    return found


def by_factors(
    x: Array,
    kernel: Array,
    axes: list[int],
    pads: list[tuple[int, int]],
    mode: str,
    beyond: float,
    dtype: np.dtype[Any],
    num_threads: int | None,
) -> Array | None:
    """Sums of the kernel over the windows of the extended axes, one axis after the other; None where it has no factors,
    or a result is not finite and so may have met a zero that the kernel leaves out."""
    if kernel.ndim < 2 or kernel.size < FEWEST or x.size == 0 or sum(n > 1 for n in kernel.shape) < 2:
        return None
    found = factors(kernel)
    if found is None:
        return None
    made = x
    double = np.dtype(np.float64)
    with np.errstate(all="ignore"):
        for i, (axis, pad, w) in enumerate(zip(axes, pads, found, strict=True)):
            own = dtype if i == len(axes) - 1 else double
            made = along(made, axis, pad, mode, beyond, w, len(w), own, num_threads)
            beyond = float(beyond * w.sum())  # what lies beyond the axes that follow
        return made if np.isfinite(made.sum()) else None
