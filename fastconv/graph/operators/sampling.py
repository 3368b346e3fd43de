"""Values at places between pixels: rows of channels are gathered and weighted, a block of places at a time.

A place along an axis has a few neighbours, `Taps`; those of several axes multiply. An image lies as rows of channels
(`pixel_rows`), with a row of zeros behind the last for neighbours outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any, Final, NamedTuple

import numpy as np

from ..._core.arrays import Array
from .registry import Call, operator

BLOCK: Final = 1 << 17  # values gathered at once
FARTHEST: Final = 2.0**30  # places beyond are moved here: whole numbers of int64, far outside of every image
CUBIC: Final = -0.75


class Taps(NamedTuple):
    """Neighbours of places along an axis: (neighbours, places) each; a pixel of -1 is outside."""

    pixel: Array
    weight: Array


def pixel_rows(call: Call, x: Array) -> Array:
    """(N, C, ...) as rows of channels, and zeros behind the last."""
    pixels = x.shape[0] * prod(x.shape[2:])
    rows = np.empty(call.check((pixels + 1, x.shape[1]), x.dtype), x.dtype)
    rows[pixels] = 0
    behind = np.moveaxis(x, 1, -1)
    rows[:pixels].reshape(behind.shape)[...] = behind
    return rows


def whole(place: Array) -> Array:
    """The whole number below, as an index."""
    return np.asarray(np.floor(bounded(place)).astype(np.int64))


def bounded(place: Array) -> Array:
    """What has no number or none that an index can say is far outside."""
    return np.asarray(np.nan_to_num(np.clip(place, -FARTHEST, FARTHEST), copy=False, nan=-FARTHEST))


def outside_is_none(index: Array, size: int) -> Array:
    """Indices, -1 where they point outside."""
    return np.where((index >= 0) & (index < size), index, -1)


def linear_taps(place: Array, size: int) -> Taps:
    """Two neighbours, by how near they are; outside is zero."""
    place = bounded(place)
    first = whole(place)
    near = place - first.astype(place.dtype)
    return Taps(np.stack([outside_is_none(first, size), outside_is_none(first + 1, size)]), np.stack([1 - near, near]))


def gather(rows: Array, start: Array | int, taps: Sequence[Taps], sizes: Sequence[int], out: Array) -> None:
    """The weighted sum of neighbours at each place into `out` (places, channels); `start` is the image's first row."""
    width = max(1, out.shape[1])
    for first in range(0, len(out), step := max(1, BLOCK // width)):
        part = slice(first, first + step)
        _gather_block(
            rows, start[part] if isinstance(start, np.ndarray) else start,
            [Taps(tap.pixel[:, part], tap.weight[:, part]) for tap in taps], sizes, out[part],
        )  # fmt: skip


def _gather_block(rows: Array, start: Any, taps: Sequence[Taps], sizes: Sequence[int], out: Array) -> None:
    picked = np.empty_like(out)
    for number, choice in enumerate(product(*(range(len(tap.pixel)) for tap in taps))):
        weight: Any = 1
        for axis, neighbour in enumerate(choice):
            weight = taps[axis].weight[neighbour] * weight
        place = corner(rows, start, taps, sizes, choice)
        target = picked if number else out
        np.take(rows, place, 0, out=target, mode="clip")
        np.multiply(target, weight[:, None], out=target, casting="unsafe")
        if number:
            np.add(out, picked, out=out)


def corner(rows: Array, start: Any, taps: Sequence[Taps], sizes: Sequence[int], choice: Sequence[int]) -> Any:
    """The row of one neighbour of each place."""
    place: Any = 0
    out: Any = False
    for axis, neighbour in enumerate(choice):
        index = taps[axis].pixel[neighbour]
        place = place * sizes[axis] + index
        out = out | (index < 0)
    return np.where(out, len(rows) - 1, place + start)


# ---- GridSample ------------------------------------------------------------------------------------------------------


def _reflected(place: Array, low: float, high: float) -> Array:
    """Places folded back at the borders until they are between them."""
    span = high - low
    if span <= 0:
        return np.full_like(place, low)
    away = np.abs(place - low) % (2 * span)
    return low + np.where(away > span, 2 * span - away, away)


class Borders(NamedTuple):
    """An axis of an image, and what is beyond its borders."""

    size: int
    padding: str
    align: bool

    @property
    def ends(self) -> tuple[float, float]:
        """Where the image ends: at the middle of its last pixels or at their edges."""
        return (0.0, self.size - 1.0) if self.align else (-0.5, self.size - 0.5)

    def inside(self, place: Array) -> Array:
        """Places moved back into the image, but for zeros."""
        low, high = self.ends
        beyond = (place < low) | (place > high)
        if self.padding == "border":
            return np.where(beyond, np.clip(place, 0, self.size - 1), place)
        if self.padding == "reflection":
            return np.where(beyond, _reflected(place, low, high), place)
        return place

    def pixels(self, index: Array) -> Array:
        """Whole places as indices of pixels, -1 where there is none."""
        if self.padding == "border":
            return np.clip(index, 0, self.size - 1)
        if self.padding == "reflection":
            return np.clip(_reflected(index, *self.ends), 0, self.size - 1).astype(np.int64)
        return outside_is_none(index, self.size)


def _taps(mode: str, place: Array, axis: Borders) -> Taps:
    """The neighbours of places along an axis."""
    if mode == "nearest":
        index = axis.pixels(whole(axis.inside(np.rint(bounded(place)))))
        return Taps(index[None], np.ones_like(place)[None])
    place = axis.inside(bounded(place))
    first = whole(place)
    near = place - first.astype(place.dtype)
    if mode == "linear":
        return Taps(np.stack([axis.pixels(first + at) for at in range(2)]), np.stack([1 - near, near]))
    distances = (1 + near, near, 1 - near, 2 - near)
    weights = [_far(d) if at in (0, 3) else _close(d) for at, d in enumerate(distances)]
    return Taps(np.stack([axis.pixels(first + at) for at in range(-1, 3)]), np.stack(weights))


def _close(d: Array) -> Array:
    """Keys' cubic kernel within one pixel."""
    return ((CUBIC + 2) * d - (CUBIC + 3)) * d * d + 1


def _far(d: Array) -> Array:
    """And between one and two."""
    return ((CUBIC * d - 5 * CUBIC) * d + 8 * CUBIC) * d - 4 * CUBIC


MODES: Final = {"bilinear": "linear", "bicubic": "cubic"}  # as operator set 16 calls them
PADDINGS: Final = ("zeros", "border", "reflection")


@operator("GridSample", since=16)
def grid_sample(call: Call, x: Array, grid: Array) -> Any:
    """An image of any number of axes at places between -1 and 1, the last axis first."""
    mode = MODES.get(call.get("mode", "linear"), call.get("mode", "linear"))
    padding, align = call.get("padding_mode", "zeros"), bool(call.get("align_corners", 0))
    if mode not in ("linear", "nearest", "cubic") or padding not in PADDINGS:
        raise call.error(f"mode {mode!r} or padding_mode {padding!r} is none of the standard's.")
    sizes = x.shape[2:]
    if x.ndim < 3 or grid.ndim != x.ndim or grid.shape[-1] != len(sizes) or grid.shape[0] != x.shape[0]:
        raise call.error(f"a grid of shape {grid.shape} does not fit an input of shape {x.shape}.")
    if 0 in sizes and grid.size:
        raise call.error(f"its input of shape {x.shape} has no pixels.")
    kind = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
    lengths = grid.shape[1:-1]
    count = prod(lengths)
    out = call.empty((x.shape[0] * count, x.shape[1]), kind)
    places = grid.reshape(x.shape[0], count, len(sizes)).astype(np.result_type(grid.dtype, np.float32), copy=False)
    for image in range(x.shape[0]):
        taps = []
        for axis, size in enumerate(sizes):
            n = places[image, :, len(sizes) - 1 - axis]
            place = (n + 1) / 2 * (size - 1) if align else ((n + 1) * size - 1) / 2
            taps.append(_taps(mode, place.astype(n.dtype, copy=False), Borders(size, padding, align)))
        part = out[image * count : (image + 1) * count]
        gather(pixel_rows(call, x[image : image + 1].astype(kind, copy=False)), 0, taps, sizes, part)
        part[np.isnan(places[image]).any(-1)] = np.nan
    y = np.moveaxis(out.reshape(x.shape[0], *lengths, x.shape[1]), -1, 1)
    return y if x.dtype == kind else y.astype(x.dtype)


@operator("AffineGrid", shaping=(1,), since=20)
def affine_grid(call: Call, theta: Array, size: Array) -> Any:
    """The places of GridSample that an affine map gives."""
    lengths = [int(number) for number in size.ravel().tolist()][2:]
    rank = len(lengths)
    if theta.ndim != 3 or theta.shape[1:] != (rank, rank + 1) or int(size.ravel()[0]) != len(theta):
        raise call.error(f"theta of shape {theta.shape} does not fit the size {size.tolist()}.")
    out = call.empty((len(theta), *lengths, rank), theta.dtype)
    wide = np.float64
    out[...] = theta[:, :, rank].astype(wide).reshape(len(theta), *(1,) * rank, rank)
    for axis, length in enumerate(lengths):
        steps = np.arange(length, dtype=wide)
        if call.get("align_corners", 0):
            places = 2 * steps / max(1, length - 1) - (length > 1)
        else:
            places = (2 * steps + 1) / max(1, length) - 1
        shape = [1] * (rank + 2)
        shape[1 + axis] = length
        out += places.reshape(shape) * theta[:, :, rank - 1 - axis].astype(wide).reshape(len(theta), *(1,) * rank, rank)
    return out
