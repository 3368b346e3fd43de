"""Sums and ReLU of Keras' NumPy backend: one parallel pass, where Keras copies its inputs first and works alone."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from fastconv import _native
from fastconv._core.arrays import Array, empty
from fastconv._core.steps import ADD, MAX, TYPES, applied
from fastconv.layers import rows

LEAST: Final = 1 << 12  # values; below it NumPy alone is as fast


def fits(x: Any) -> bool:
    """Whether a pass over x is worth it."""
    return isinstance(x, np.ndarray) and x.dtype in TYPES and x.size >= LEAST and x.flags.c_contiguous


def relu(x: Array) -> Array:
    """The larger of x, which `fits`, and 0; NaN stays."""
    return applied(x, (MAX, 0.0))


def sum_fits(x: Any, z: Any) -> bool:
    """Whether x `fits` and z is of its shape, or a value for each of its last axis."""
    return (
        fits(x) and isinstance(z, np.ndarray) and z.dtype == x.dtype and z.flags.c_contiguous
        and (z.shape == x.shape or (0 < z.ndim <= x.ndim and z.size == z.shape[-1] == x.shape[-1]))
    )  # fmt: skip


def add(x: Array, z: Array) -> Array:
    """x + z, for which `sum_fits`."""
    out, item = empty(x.shape, x.dtype), x.itemsize
    if z.shape == x.shape:
        shape, strides = (1, x.size, 1), ((item,) * 3,) * 3
    else:
        channels = x.shape[-1]
        shape = (1, x.size // channels, channels)
        strides = (((0, item * channels, item),) * 2) + ((0, 0, item),)
    _native.elementwise(out, x, (z,), shape, strides, ((ADD, 0, 0.0),), rows.team(x))
    return out
