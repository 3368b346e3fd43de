"""Sums over windows of extended arrays: what every function of this package comes down to.

One channel in, one channel out leaves a matrix kernel nothing to fill its vectors with. Here the lanes are neighbouring
pixels of a row: seen as if pixel X had the `LANES` channels x[X], x[X + 1], ... (a view in which pixels overlap, so
that nothing is copied), the convolution is a depthwise one at a stride of `LANES` columns with the same kernel in every
channel, which `fastconv.conv2d` reads in place. The order of the sums is that of the plain call.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from .._core.geometry import conv_geometry
from .._core.problem import Direction, problem
from .._core.select import choose
from .._core.types import Types
from ..errors import ConvError
from ..functional import conv2d

Array = NDArray[Any]

LANE_BYTES: Final = 256  # of the channels of the view: fastest of 64 ... 1024 for kernels of 3 to 15 columns on Zen 4
FEWEST_OUTPUTS: Final = 1024  # below, making the view costs more than it saves
BAND_ROWS: Final = 16  # kernel rows of one depthwise call: taller windows are beyond the reach of its kernels,
WIDEST_KERNEL: Final = 512  # and so are wider ones

# What lies beyond the ends of an axis, in the words of numpy.pad.
MODES: Final = ("constant", "symmetric", "reflect", "edge", "wrap")


def extended(x: Array, pads: Sequence[tuple[int, int]], mode: str, value: Any, dtype: Any) -> Array:
    """A C-contiguous copy of `x` in `dtype`, its last len(pads) axes extended as `mode` (of `MODES`) says.

    `numpy.pad` does the same in more passes over the array.
    """
    lead = x.ndim - len(pads)
    sizes = x.shape[lead:]
    result: Array = np.empty((*x.shape[:lead], *(n + sum(pad) for n, pad in zip(sizes, pads, strict=True))), dtype)
    inside = [slice(before, before + n) for n, (before, _) in zip(sizes, pads, strict=True)]
    whole: list[Any] = [..., *inside]
    result[tuple(whole)] = x
    for axis, (n, pad) in enumerate(zip(sizes, pads, strict=True)):
        if pad == (0, 0):
            continue
        if mode != "constant" and n == 0:
            raise ConvError(f"an axis of size 0 of an input of shape {x.shape} has nothing to repeat; use a constant.")
        later: list[Any] = [*inside[axis + 1 :]]  # earlier axes are complete by now, so that corners are too
        every: list[Any] = [slice(None)] * (lead + axis)
        place = None if mode == "constant" else pad[0] + np.pad(np.arange(n), pad, mode)  # type: ignore[call-overload]
        for side in (slice(0, pad[0]), slice(pad[0] + n, None)):
            result[(*every, side, *later)] = value if place is None else result[(*every, place[side], *later)]
    return result


def correlate_valid(
    x: Array,
    weight: Array,
    stride: Sequence[int],
    dilation: Sequence[int],
    num_threads: int | None = None,
    algorithm: str = "auto",
) -> Array:
    """Sums of `weight` over the windows of the last weight.ndim axes of `x`; both of one floating type.

    `x` must be C-contiguous. More than two axes are sums of images, tap by tap of the axes before the last two. Large
    kernels go by Fourier transforms unless the `algorithm` is 'direct'.
    """
    lead = x.ndim - weight.ndim
    if weight.ndim == 1:  # a batch of rows is an image for a kernel of one row
        weight, stride, dilation = weight[None], (1, *stride), (1, *dilation)
        x = x if lead else x[None]
        return correlate_valid(x, weight, stride, dilation, num_threads, algorithm)[(...,) if lead else 0]
    sizes = [
        max(0, (n - (k - 1) * d - 1) // s + 1)
        for n, k, s, d in zip(x.shape[lead:], weight.shape, stride, dilation, strict=True)
    ]
    result: Array = np.empty((*x.shape[:lead], *sizes), x.dtype)
    taps = [tap for tap in np.ndindex(*weight.shape[:-2]) if weight[tap].any()]
    if result.size == 0 or not taps:
        result[...] = 0
        return result
    planes = result.shape[:-2]
    for tap in taps:
        steps = tuple(
            slice(i * d, i * d + (n - 1) * s + 1, s)
            for i, d, n, s in zip(tap, dilation, sizes[:-2], stride, strict=False)
        )
        part = x[(slice(None),) * lead + steps]
        for index in np.ndindex(*planes[:-1]):
            images, sums = (part[index], result[index]) if planes else (part[None], result[None])
            _sum_images(images, weight[tap], stride[-2:], dilation[-2:], sums, tap != taps[0], num_threads, algorithm)
    return result


@lru_cache(maxsize=256)
def _method(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], dtype: Any
) -> str:
    """By which method one image of one channel is convolved."""
    g = conv_geometry((1, 1, *size), (1, 1, *kernel), stride, 0, dilation, 1)
    return choose(problem(g, Direction.FORWARD, Types(dtype, dtype, dtype))).method.word


def by_transforms(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int], dtype: Any
) -> bool:
    """Whether plain sums over an image would cost more than Fourier transforms."""
    return _method(tuple(size), tuple(kernel), tuple(stride), tuple(dilation), np.dtype(dtype)) != "direct"


def _sum_images(
    x: Array,
    kernel: Array,
    stride: Sequence[int],
    dilation: Sequence[int],
    sums: Array,
    add: bool,
    num_threads: int | None,
    algorithm: str,
) -> None:
    """Write or `add` into `sums` (N, H', W') the sums of `kernel` over the windows of `x` (N, H, W)."""
    columns = (sums.shape[2] - 1) * stride[1] + 1
    lanes = LANE_BYTES // x.itemsize
    fast = algorithm != "direct" and by_transforms(x.shape[1:], kernel.shape, stride, dilation, x.dtype)
    if fast or columns < lanes or kernel.shape[1] > WIDEST_KERNEL or sums[0].size < FEWEST_OUTPUTS:
        conv2d(
            x[:, None], kernel[None, None], None, tuple(stride), 0, tuple(dilation),
            residual=sums[:, None] if add else None, algorithm=algorithm, num_threads=num_threads, out=sums[:, None],
        )  # fmt: skip
        return
    # at a stride every column is computed and some are kept: lanes take neighbours
    target = sums if stride[1] == 1 else np.empty((*sums.shape[:2], columns), x.dtype)
    for top in range(0, kernel.shape[0], BAND_ROWS):
        band = kernel[top : top + BAND_ROWS]
        first = top * dilation[0]
        rows = (sums.shape[1] - 1) * stride[0] + (len(band) - 1) * dilation[0] + 1
        _sum_lanes(
            x[:, first : first + rows], band, stride[0], dilation, target, lanes,
            top > 0 or (add and target is sums), num_threads,
        )  # fmt: skip
    if target is not sums:
        sums[...] = target[:, :, :: stride[1]] + (sums if add else 0)


def _sum_lanes(
    x: Array,
    kernel: Array,
    stride: int,
    dilation: Sequence[int],
    sums: Array,
    lanes: int,
    add: bool,
    num_threads: int | None,
) -> None:
    """The same in lanes, where every column is wanted; `sums` has at least as many columns as there are lanes."""
    weight = np.ascontiguousarray(np.broadcast_to(kernel[..., None, None], (*kernel.shape, 1, lanes)))
    item, span = x.itemsize, (kernel.shape[1] - 1) * dilation[1] + 1

    def run(first: int, out: Array, add: bool) -> None:
        """From column `first` on into all columns of `out`, a multiple of `lanes`."""
        blocks = out.shape[2] // lanes
        start = x[:, :, first:]
        view = as_strided(
            start, (*x.shape[:2], (blocks - 1) * lanes + span, lanes), (*x.strides[:2], item, item), writeable=False
        )
        lane_sums = as_strided(out, (*out.shape[:2], blocks, lanes), (*out.strides[:2], lanes * item, item))
        conv2d(
            view, weight, None, (stride, lanes), 0, tuple(dilation), lanes, data_format="NHWC",
            residual=lane_sums if add else None, algorithm="direct", num_threads=num_threads, out=lane_sums,
        )  # fmt: skip

    columns = sums.shape[2]
    whole = columns // lanes * lanes
    run(0, sums[:, :, :whole], add)
    if whole < columns:  # the rest in lanes that reach back over columns done before
        last: Array = np.empty((*sums.shape[:2], lanes), x.dtype)
        run(columns - lanes, last, False)
        rest = last[:, :, whole - columns :]
        sums[:, :, whole:] = sums[:, :, whole:] + rest if add else rest
