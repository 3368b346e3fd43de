"""The input gradient under padding that repeats pixels: that of the padded image, folded back."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from .geometry import Geometry, padded_index
from .operands import Array
from .sums import FEW
from .types import COMPUTE, COMPUTE_DTYPES

MOST_PADDED_BYTES = 4 << 20  # of the channels of a slice


def fold(padded: Array, before: int, size: int, mode: str, axis: int) -> Array:
    """Adjoint of padding along one axis: every padded position adds to the element it repeats."""
    shape = list(padded.shape)
    shape[axis] = size
    wide = np.float64 if padded.dtype == np.float32 and padded.shape[axis] - size > FEW else padded.dtype
    out = np.zeros(shape, wide)

    def at(position: slice | int) -> tuple[Any, ...]:
        return (slice(None),) * axis + (position,)

    lo, hi = max(0, -before), min(size, padded.shape[axis] - before)
    if hi > lo:
        out[at(slice(lo, hi))] = padded[at(slice(lo + before, hi + before))]
    with np.errstate(all="ignore"):  # an infinity may meet one of the other sign, a large number overflow
        for i in range(padded.shape[axis]):
            if not 0 <= i - before < size:
                out[at(padded_index(i - before, size, mode))] += padded[at(i)]
        return out.astype(padded.dtype, copy=False)


def padded_input_gradient(
    g: Geometry, dy: Array, w: Array, out: Array, gradient: Callable[[Geometry, Array, Array, Array], None]
) -> None:
    """Image by image and channels in slices; `gradient(g, dy, w, out)` computes one without padding."""
    pads, axes = g.padding, range(len(g.padding))
    size = tuple(n + before + after for n, (before, after) in zip(g.input_size, pads, strict=True))
    dtype = COMPUTE_DTYPES[COMPUTE[out.dtype]]
    in_group, out_group = w.shape[1], max(1, w.shape[0] // g.groups)
    budget = max(1, MOST_PADDED_BYTES // max(1, prod(size) * dtype.itemsize))  # channels of a slice
    slice_channels = min(in_group, budget) if g.groups == 1 else in_group
    slice_groups = 1 if g.groups == 1 else max(1, budget // max(1, in_group))
    for n in range(out.shape[0]):
        for first in range(0, g.groups, slice_groups):
            last = min(g.groups, first + slice_groups)
            for c in range(0, in_group, max(1, slice_channels)):
                channels = min(slice_channels, in_group - c)
                padded = np.empty((1, (last - first) * channels, *size), dtype)
                rows = slice(first * out_group, last * out_group)
                own = w[rows, c : c + channels]
                bare = g._replace(
                    batch=1, in_channels=padded.shape[1], out_channels=len(own), groups=last - first,
                    input_size=size, padding=((0, 0),) * len(size), padding_mode="zeros",
                )  # fmt: skip
                gradient(bare, dy[n : n + 1, rows], own, padded)
                folded = padded
                for axis in axes:
                    folded = fold(folded, pads[axis][0], g.input_size[axis], g.padding_mode, 2 + axis)
                begin = first * in_group + c
                out[n : n + 1, begin : begin + padded.shape[1]] = folded
