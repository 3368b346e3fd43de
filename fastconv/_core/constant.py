"""Padding with a constant that is not 0: blocks of the padded image, each convolved without padding.

The one place where such a padding is met. A block is so small that its copy is scratch memory; its convolution may be
by any method, chosen for the block. The constant is a value like those of the image: what is infinite or NaN reaches
every output whose window holds it. An input gradient sees no difference to zeros, as no value of the padding is the
image's.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import isfinite, prod
from typing import NamedTuple

import numpy as np

from ..errors import ConvError, ConvTypeError
from .arrays import Array
from .geometry import Geometry, extents
from .types import FLOATS, DType
from .words import CONSTANT, Sizes

BLOCK_BYTES = 2 << 20  # of a padded block, beside the scratch of its convolution


def is_constant(g: Geometry) -> bool:
    """Whether the padding holds a value that is not 0."""
    return g.padding_mode == CONSTANT


def require_value(name: str, g: Geometry, dtype: DType) -> None:
    """Refuse a padding value that images of this type cannot hold."""
    value = g.padding_value
    if dtype in FLOATS:
        with np.errstate(over="ignore"):
            if isfinite(value) and not np.isfinite(np.float64(value).astype(dtype)):
                raise ConvError(
                    f"{name}: padding_value={value!r} is beyond the range of the input's {dtype}; pass float('inf'), "
                    "or convert the input to a wider type."
                )
        return
    limits = np.iinfo(dtype)
    if not isfinite(value) or value != int(value):
        raise ConvTypeError(
            f"{name}: padding_value must be a whole number for an input of {dtype}, but got padding_value={value!r}; "
            "round it, or convert the arrays with .astype('float32')."
        )
    if not limits.min <= value <= limits.max:
        raise ConvError(
            f"{name}: padding_value={value!r} is beyond the range of the input's {dtype}, {limits.min} to "
            f"{limits.max}; convert the input to a wider type."
        )


# ---- blocks --------------------------------------------------------------------------------------------------------


class Cut(NamedTuple):
    """How many images and outputs a block has."""

    images: int
    outputs: Sizes


def padded_size(g: Geometry, outputs: Sizes) -> Sizes:
    """Of the padded image under so many outputs."""
    reach = extents(g.kernel_size, g.dilation)
    return tuple((n - 1) * step + extent for n, step, extent in zip(outputs, g.stride, reach, strict=True))


def cut(g: Geometry, element: int, most: int = BLOCK_BYTES) -> Cut:
    """Blocks of at most `most` bytes, or of a single output; what an image is cut into does not depend on the batch."""
    outputs = [max(1, n) for n in g.output_size]

    def bytes_of() -> int:
        return max(1, prod(padded_size(g, tuple(outputs))) * g.in_channels * element)

    while bytes_of() > most and max(outputs) > 1:
        axis = outputs.index(max(outputs))
        half = -(-outputs[axis] // 2)
        outputs[axis] = -(-half // 4) * 4 if half > 8 else half
    return Cut(max(1, min(g.batch, most // bytes_of())), tuple(outputs))


def block_geometry(g: Geometry, images: int, outputs: Sizes) -> Geometry:
    """The convolution of a block of the padded image."""
    return g._replace(
        batch=images, input_size=padded_size(g, outputs), output_size=outputs, padding=((0, 0),) * len(outputs),
        padding_mode="zeros", padding_value=0,
    )  # fmt: skip


def first_block(g: Geometry, element: int, most: int = BLOCK_BYTES) -> Geometry:
    """The convolution that decides how all blocks are computed."""
    return block_geometry(g, *cut(g, element, most))


def as_zeros(g: Geometry) -> Geometry:
    """The same for an input gradient, which is that of zeros."""
    return g._replace(padding_mode="zeros", padding_value=0) if is_constant(g) else g


def whole(g: Geometry, x: Array) -> tuple[Geometry, Array]:
    """The same convolution without padding, of the padded image."""
    own = block_geometry(g, g.batch, g.output_size)
    shape = tuple(n + before + after for n, (before, after) in zip(g.input_size, g.padding, strict=True))
    padded = np.empty((*x.shape[:2], *shape), x.dtype)
    _fill(padded, x, tuple(-before for before, _ in g.padding), g.padding_value)
    return own._replace(input_size=shape), padded


def _fill(block: Array, x: Array, first: Sizes, value: float) -> None:
    """`block`, whose corner lies at the position `first` of the image, from `x` and the value around it."""
    inside, there = [slice(None)] * 2, [slice(None)] * 2
    for begin, length, own in zip(first, x.shape[2:], block.shape[2:], strict=True):
        low = min(max(-begin, 0), own)
        high = max(low, min(length - begin, own))
        inside.append(slice(low, high))
        there.append(slice(begin + low, begin + high))
    if any(part != slice(0, own) for part, own in zip(inside[2:], block.shape[2:], strict=True)):
        block[...] = value
    if all(part.stop > part.start for part in inside[2:]):
        block[tuple(inside)] = x[tuple(there)]


def blocks(g: Geometry, c: Cut, x: Array, channels_last: bool) -> Iterator[tuple[slice, tuple[slice, ...], Array]]:
    """(images, outputs, padded image under them) of all blocks; the memory of one is that of the next of its shape."""
    kept: dict[tuple[int, ...], Array] = {}
    starts = [range(0, n, own) for n, own in zip(g.output_size, c.outputs, strict=True)]
    for image in range(0, len(x), c.images):
        images = slice(image, min(image + c.images, len(x)))
        for place in product(*starts):
            ends = [min(at + own, n) for at, own, n in zip(place, c.outputs, g.output_size, strict=True)]
            size = padded_size(g, tuple(end - at for at, end in zip(place, ends, strict=True)))
            shape = (images.stop - image, x.shape[1], *size)
            if shape not in kept:
                if channels_last:
                    kept[shape] = np.moveaxis(np.empty((shape[0], *size, shape[1]), x.dtype), -1, 1)
                else:
                    kept[shape] = np.empty(shape, x.dtype)
            first = tuple(at * step - pads[0] for at, step, pads in zip(place, g.stride, g.padding, strict=True))
            _fill(kept[shape], x[images], first, g.padding_value)
            yield images, tuple(slice(at, end) for at, end in zip(place, ends, strict=True)), kept[shape]
