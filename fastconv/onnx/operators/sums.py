"""Sums whose error does not grow with their length; those over pixels that lie channels last are native."""

from __future__ import annotations

from math import prod

import numpy as np

from ... import _native
from ...arrays import Array, lies_channels_last
from ...threads import effective
from .chain import SERIAL_BELOW, TYPES

SPATIAL = (2, 3)
RUNNING = 128  # terms that NumPy adds one after the other in its pairwise sums, too


def summed(x: Array, axes: tuple[int, ...], threads: int | None = 1) -> Array:
    """The sum over axes, which stay with length 1.

    NumPy adds in pairs along the last axes of a contiguous array and one after the other elsewhere: there float32 is
    added up in float64.
    """
    axes = tuple(sorted(axes))
    if axes == SPATIAL and (sums := spatial_sums(x, threads)) is not None:
        return sums
    pairs = x.flags.c_contiguous and axes == tuple(range(x.ndim - len(axes), x.ndim))
    long = x.dtype == np.float32 and not pairs and prod(x.shape[axis] for axis in axes) > RUNNING
    total = np.sum(x, axis=axes, dtype=np.float64 if long else x.dtype, keepdims=True)
    return np.asarray(total).astype(x.dtype, copy=False)


def mean(x: Array, axes: tuple[int, ...], threads: int | None = 1) -> Array:
    """The mean over axes, which stay with length 1."""
    total = summed(x, axes, threads)
    return np.asarray(np.divide(total, total.dtype.type(prod(x.shape[axis] for axis in axes))))


def spatial_sums(x: Array, threads: int | None) -> Array | None:
    """(N, C, 1, 1): every channel of every image summed up; None where the array does not lie so."""
    if x.ndim != 4 or x.dtype not in TYPES or not lies_channels_last(x):
        return None
    images = x.transpose(0, 2, 3, 1)
    if not images.flags.c_contiguous:
        return None
    batch, height, width, channels = images.shape
    total = np.empty((batch, channels), x.dtype)
    team = effective(threads) if height * width * channels >= SERIAL_BELOW else 1
    for rows, sums in zip(images.reshape(batch, height * width, channels), total, strict=True):
        _native.channel_sums(rows, sums, team)
    return total.reshape(batch, channels, 1, 1)
