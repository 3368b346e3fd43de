"""The gradients of tiled convolutions, from a caller's arguments to plans: one for each kernel."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from .arrays import Array, DType
from .ask import Asked, asked
from .contributions import sum_dtype, summed, within
from .geometry import Geometry, tiled_geometries
from .into import into_activation, into_weight
from .later import Later
from .types import FLOATS

if TYPE_CHECKING:
    from . import operations
else:
    operations = Later("operations")

# Sums over tiles are held for a slice of the channels of one image at a time, to bound the scratch memory.
SLICE_BYTES: Final = 4 << 20


def tiled_input_gradient(
    input_size: object,
    weight: object,
    grad_output: object,
    stride: object,
    padding: object,
    dilation: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
    out: object,
    accumulate: object,
) -> Array:
    """The gradient of a tiled convolution with respect to its input: the sum over the tiles."""
    a = asked(
        "tiled_conv2d_input", 2, data_format, (stride, padding, dilation, 1, "zeros", 0), input_size, weight, algorithm,
        num_threads, gradient=(grad_output,), input_shape="input_size", tiled=True,
    )  # fmt: skip
    g, dy, kernels = a.geometry, a.grad_output, a.weight
    assert dy is not None and kernels is not None
    wide = sum_dtype(a.dtype)
    own = kernels.astype(wide) if a.dtype.itemsize < wide.itemsize and a.dtype in FLOATS else kernels

    def compute(images: slice, to: Array) -> None:
        for n, channels in _slices(g._replace(batch=len(to)), wide):
            some = g._replace(batch=1, in_channels=channels.stop - channels.start)
            image = dy[images.start + n : images.start + n + 1]
            if a.dtype in FLOATS:
                image = image.astype(wide, copy=False)
            to[n : n + 1, channels] = within(a.name, _over_tiles(a, some, image, own[:, :, :, channels]), a.dtype)

    shape, safe = (g.batch, g.in_channels, *g.input_size), a.dtype in FLOATS
    return into_activation(
        a.name, out, accumulate, a.frame, shape, a.dtype, a.batched, a.lies_last(dy), (dy, kernels), compute, safe=safe
    )


def _over_tiles(a: Asked, g: Geometry, image: Array, kernels: Array) -> Array:
    """The gradient with respect to some channels of an image: the sum over the tiles."""
    tiles, wide = kernels.shape[:2], sum_dtype(a.dtype)
    total = np.zeros((1, g.in_channels, *g.input_size), wide)
    share = np.empty_like(total)
    for (top, left), part in tiled_geometries(g, tiles):
        pixels = image[:, :, top :: tiles[0], left :: tiles[1]]
        if pixels.size:
            kernel = kernels[top, left]
            operations.input_gradient(part, pixels, kernel, None, share, algorithm=a.algorithm, threads=a.threads)
            total = summed(a.name, total, share)
    return total


def tiled_weight_gradient(
    input: object,
    weight_size: object,
    grad_output: object,
    stride: object,
    padding: object,
    dilation: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
    out: object,
    accumulate: object,
) -> Array:
    """The gradient of a tiled convolution with respect to its weight."""
    a = asked(
        "tiled_conv2d_weight", 2, data_format, (stride, padding, dilation, 1, "zeros", 0), input, weight_size,
        algorithm, num_threads, gradient=(grad_output,), weight_shape="weight_size", tiled=True,
    )  # fmt: skip
    x, dy = a.input, a.grad_output
    assert x is not None and dy is not None

    def compute(dw: Array) -> None:
        tiles = dw.shape[:2]
        for (top, left), part in tiled_geometries(a.geometry, tiles):
            pixels = dy[:, :, top :: tiles[0], left :: tiles[1]]
            operations.weight_gradient(part, x, pixels, dw[top, left], algorithm=a.algorithm, threads=a.threads)

    return into_weight(a.name, out, accumulate, a.frame, a.shown_weight, a.weight_dtype, (x, dy), compute, tiled=True)


def _slices(g: Geometry, dtype: DType) -> Iterator[tuple[int, slice]]:
    """Every image and, within it, slices of channels whose planes take at most `SLICE_BYTES`."""
    plane_bytes = max(1, prod(g.input_size) * dtype.itemsize)
    step = max(1, SLICE_BYTES // plane_bytes)
    for n in range(g.batch):
        for first in range(0, g.in_channels, step):
            yield n, slice(first, min(first + step, g.in_channels))
