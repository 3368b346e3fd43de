"""Boxes of pixels along one to three axes: which of the input windows of an output box look at, and what was read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from .._core.geometry import Geometry, extents
from .._core.windows import PoolGeometry
from .._core.words import Pads, Sizes

Array = NDArray[Any]
Range = tuple[int, int]
Box = tuple[Range, ...]  # along every spatial axis
Source = Callable[[Box], Array]  # the pixels (1, *spatial, C) of a box


def needed(outputs: Range, stride: int, extent: int, before: int, size: int, aligned: int) -> tuple[Range, Range]:
    """The positions that windows of these outputs meet, and how many of padding lie before and after them.

    Where outputs are made `aligned` at a time, the positions of the last ones' windows too: padding is then negative.
    """
    first = outputs[0] * stride - before
    last = (outputs[1] - 1) * stride - before + extent
    start = min(max(0, first), size)
    stop = max(start, min(last + (-outputs[1] % aligned) * stride, size))
    if start == stop:  # windows of padding alone
        return (start, stop), (last - first, 0)
    return (start, stop), (start - first, last - stop)


def windows(
    g: Geometry | PoolGeometry, outputs: Box, aligned: Sequence[int] | None = None
) -> tuple[Box, Pads]:
    """The box of the input that windows of these outputs meet, and the padding around it."""
    boxes, pads = [], []
    aligned = aligned or (1,) * len(outputs)
    for axis, extent in enumerate(extents(g.kernel_size, g.dilation)):
        box, sides = needed(
            outputs[axis], g.stride[axis], extent, g.padding[axis][0], g.input_size[axis], aligned[axis]
        )
        boxes.append(box)
        pads.append(sides)
    return tuple(boxes), tuple(pads)


def grains(outputs: Box, aligned: Sizes, size: Sizes) -> Box:
    """The box of whole grains around outputs, within those that there are."""
    return tuple(
        (begin // step * step, min(end, -(-stop // step) * step))
        for (begin, stop), step, end in zip(outputs, aligned, size, strict=True)
    )


def is_empty(box: Box) -> bool:
    return any(begin == end for begin, end in box)


def cut(x: Array, held: Box, wanted: Box) -> Array:
    """The wanted box out of an array that holds another."""
    return x[(slice(None), *(slice(begin - at, end - at) for (at, _), (begin, end) in zip(held, wanted, strict=True)))]


def remembering(source: Source) -> Source:
    """A source for several readers: what lies in a box that was read before is not made again."""
    held: list[tuple[Box, Array]] = []

    def shared(box: Box) -> Array:
        for own, pixels in held:
            if all(a[0] <= b[0] and b[1] <= a[1] for a, b in zip(own, box, strict=True)):
                return cut(pixels, own, box)
        held.append((box, source(box)))
        return held[-1][1]

    return shared
