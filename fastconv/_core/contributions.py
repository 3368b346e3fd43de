"""Gradients that are sums of several contributions, and those that are added to what an array holds.

A sum of integers is exact or refused before anything is written.
"""

from __future__ import annotations

import numpy as np

from ..errors import ConvError
from .arrays import INT64, Array, DType
from .types import FLOATS


def sum_dtype(dtype: DType) -> DType:
    """What sums of this result type are held in: float16 in float32, integers in int64."""
    if dtype in FLOATS:
        return np.dtype(np.float32) if dtype.itemsize == 2 else dtype
    return INT64


def summed(name: str, total: Array, share: Array) -> Array:
    """total + share; integers that wrapped are refused."""
    sum_ = total + share
    # Two's complement addition wrapped where both terms differ in sign from their sum.
    if total.dtype == INT64 and bool((((total ^ sum_) & (share ^ sum_)) < 0).any()):
        raise too_large(name, INT64)
    return sum_


def within(name: str, total: Array, dtype: DType) -> Array:
    """`total` if it fits in the integers of `dtype`; any float."""
    if dtype not in FLOATS and dtype != INT64 and total.size:
        limits = np.iinfo(dtype)
        if total.min() < limits.min or total.max() > limits.max:
            raise too_large(name, dtype)
    return total


def too_large(name: str, dtype: DType) -> ConvError:
    """The refusal of a gradient of integers whose sums do not fit."""
    return ConvError(
        f"{name}: the gradient leaves the range of {dtype}; nothing wraps silently. Convert grad_output to a wider "
        "integer type or to float64."
    )


def added(name: str, held: Array, share: Array) -> Array:
    """held + share in the type of both; integers that leave its range are refused."""
    if held.dtype in FLOATS:
        with np.errstate(all="ignore"):
            sum_: Array = held + share
        return sum_
    return within(name, summed(name, held.astype(INT64), share), held.dtype).astype(held.dtype, copy=False)
