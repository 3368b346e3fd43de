"""Sums whose error does not grow with their length; those over pixels that lie channels last are native."""

from __future__ import annotations

from math import prod

import numpy as np

from ... import _native
from ..._core.arrays import Array
from ..._core.layouts import lies_channels_last
from ..._core.steps import SERIAL_BELOW, TYPES
from ..._core.sums import mean as mean_of
from ..._core.sums import total
from ..._core.threads import effective

SPATIAL = (2, 3)

def summed(x: Array, axes: tuple[int, ...], threads: int | None = 1) -> Array:
    """The sum over axes, which stay with length 1."""
    axes = tuple(sorted(axes))
    if axes == SPATIAL and (sums := spatial_sums(x, threads)) is not None:
        return sums
    if x.dtype.kind != "f":
        return np.asarray(np.sum(x, axis=axes, dtype=x.dtype, keepdims=True))
    return total(x, axes, keepdims=True)


def mean(x: Array, axes: tuple[int, ...], threads: int | None = 1) -> Array:
    """The mean over axes, which stay with length 1."""
    if tuple(sorted(axes)) != SPATIAL and x.dtype.kind == "f":
        return mean_of(x, axes, keepdims=True)
    sums = summed(x, axes, threads)
    return np.asarray(np.divide(sums, sums.dtype.type(prod(x.shape[axis] for axis in axes))))


def spatial_sums(x: Array, threads: int | None) -> Array | None:
    """(N, C, 1, 1): every channel of every image summed up; None where the array does not lie so."""
    if x.ndim != 4 or x.dtype not in TYPES or not lies_channels_last(x):
        return None
    images = x.transpose(0, 2, 3, 1)
    if not images.flags.c_contiguous:
        return None
    batch, height, width, channels = images.shape
    found = np.empty((batch, channels), x.dtype)
    team = effective(threads) if height * width * channels >= SERIAL_BELOW else 1
    for rows, sums in zip(images.reshape(batch, height * width, channels), found, strict=True):
        _native.channel_sums(rows, sums, team)
    return found.reshape(batch, channels, 1, 1)
