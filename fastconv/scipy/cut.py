"""Sums that are cut to integers: SciPy's, also where the last bit decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from .types import Array

GATHERED: Final = 1 << 14  # outputs made together in SciPy's order: their terms stay in the first-level cache


def in_scipys_order(
    sums: Array, x: Array, w: Array, stride: list[int], dilation: list[int], channels: bool, integers: bool
) -> None:
    """Make sums again that lie so near a whole number other than 0 that roundings decide on which side of it.

    SciPy adds one product after the other, in the order of the kernel (with `channels`, of each channel's), and rounds
    every product and every sum. `integers`: whether `x` holds whole numbers alone.
    """
    kernels = w if channels else w[None]
    terms, heaviest = kernels[0].size, float(np.abs(kernels).reshape(len(kernels), -1).sum(axis=1).max(initial=0))
    magnitude = heaviest * max(abs(float(x.max(initial=0))), abs(float(x.min(initial=0))))
    if integers and magnitude < 2.0**53 * lowest_bit(w):  # every order is exact
        return
    nearness = (terms + 2) * 2.0**-51 * magnitude  # twice what either order may err
    inner = [step // x.itemsize for step in x.strides]  # x is contiguous
    lead = x.ndim - len(stride)
    channel = inner[0] if channels else 0
    steps = [*inner[channels:lead], *(s * n for s, n in zip(stride, inner[lead:], strict=True))]
    spread = [d * n for d, n in zip(dilation, inner[lead:], strict=True)]
    for own, kernel in zip(sums if channels else sums[None], kernels, strict=True):
        taps = np.argwhere(kernel) if channels else np.insert(np.argwhere(kernel), 0, 0, axis=1)
        offsets = (taps @ np.array([channel, *spread])).tolist()
        products = list(zip(offsets, kernel[kernel != 0].tolist(), strict=True))
        _by_blocks(own, x.reshape(-1), steps, products, nearness)


def _by_blocks(sums: Array, x: Array, steps: list[int], products: list[tuple[int, float]], nearness: float) -> None:
    """Some rows of the last axis at a time; output (i, j, ...) begins at i * steps[0] + j * steps[1] + ... of `x`."""
    if sums.ndim == 1:
        sums, steps = sums[None], [0, *steps]
    down, right = steps[-2:]
    rows = max(1, GATHERED // max(1, sums.shape[-1]))
    for index in np.ndindex(*sums.shape[:-2]):
        begin = sum(i * step for i, step in zip(index, steps, strict=False))
        for top in range(0, sums.shape[-2], rows):
            part = sums[index][top : top + rows]
            whole = np.rint(part)
            near = (np.abs(part - whole) <= nearness) & (whole != 0)
            found = np.count_nonzero(near)
            if not found:
                continue
            first = begin + top * down
            if 4 * found < near.size:
                i, j = np.nonzero(near)
                places = first + i * down + j * right
                part[near] = _added_up(products, places.shape, _elements(x, places))
            else:
                made = _added_up(products, part.shape, _lattice(x, first, part.shape, (down, right)))
                np.copyto(part, made, where=near)


Values = Callable[[int], Array]  # of an array, moved on by an offset


def _elements(x: Array, places: Array) -> Values:
    return lambda offset: x.take(places + offset)


def _lattice(x: Array, first: int, shape: tuple[int, ...], steps: tuple[int, ...]) -> Values:
    """Elements first + i * steps[0] + j * steps[1], as a view."""
    item = x.itemsize
    strides = tuple(step * item for step in steps)
    return lambda offset: np.ndarray(shape, x.dtype, x.data, (first + offset) * item, strides)


def _added_up(products: list[tuple[int, float]], shape: tuple[int, ...], values: Values) -> Array:
    """Sums of products, one after the other: each of a weight and the values at its offset."""
    made, one = np.zeros(shape), np.empty(shape)
    for offset, weight in products:
        np.multiply(values(offset), weight, out=one)
        made += one
    return made


def lowest_bit(values: Array) -> float:
    """The largest power of two of which all values are multiples; 0 if that is none."""
    if not np.isfinite(values).all():
        return 0.0
    mantissas, exponents = np.frexp(values[values != 0])
    if not mantissas.size:
        return 1.0
    whole = np.abs(mantissas * 2.0**53).astype(np.int64)
    return float(np.min(np.ldexp((whole & -whole).astype(np.float64), exponents - 53)))
