"""Sums over the pixels of images that lie channels last: native, in parallel, cut by shape alone."""

from __future__ import annotations

import numpy as np

from ... import _native
from ...arrays import Array, lies_channels_last
from ...threads import effective
from .chain import SERIAL_BELOW, TYPES

SPATIAL = (2, 3)


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
