"""Which algorithm computes a convolution, in which passes and with which loop sizes.

Pure functions of shapes, element type, instruction set and allowed threads: nothing here sees an array. No choice
that results depend on looks at the batch size, so that a batch computed in slices has the same bits; but for that of
the weight gradient, which sums over the batch.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np

from . import _native
from .errors import ConvError
from .geometry import Geometry

# Where the register tiles read their pixels (drivers/direct.pxi).
IN_PLACE, REGION, GATHER = 0, 1, 2
SOURCES = ("in place", "packed region", "gathered")

# Cache budgets in bytes, for 32-48 KB of first-level and at least 1 MB of second-level cache a core.
WEIGHT_SLICE_BYTES = 64 << 10  # the weights under a register tile stream from the second level, 256 rows of a panel
REGION_BYTES = 384 << 10  # the packed input under a tile of outputs stays in the second level
SUMS_BYTES = 320 << 10  # weight-gradient sums of a block, likewise
GATHER_ABOVE_BYTES = 4 << 20  # a window larger than this is never packed whole
# Costs of a task of the direct driver in cycles, to share it out (measured on Zen 4): a call of the micro-kernel; a
# vector of the region that is packed; a vector of weights, which most layouts transpose; all that a task does once.
CALL_CYCLES, PACK_CYCLES, WEIGHT_CYCLES, TASK_CYCLES = 30, 4, 14, 1000
PANEL_BYTES = 5 << 19  # weights of one panel that a thread packs for itself in a single call
FLOAT32 = _native.COMPUTES["float32"]
WORKSPACE_BYTES = _native.WORKSPACE_BYTES  # scratch of all threads together
PARTIAL_SUMS_BYTES = 8 << 20  # all partial sums of a weight gradient
MERGING_GAIN = 0.8  # vector operations of merged phases, beside those of phases apart
MOST_PIXELS = 768  # outputs of a tile: their sums (one panel) take at most 192 KB
WINOGRAD_SUMS_BYTES = 648 << 10  # sums of a block of 72 tiles in AVX-512, read and written once a slice
WINOGRAD_SLICE_BYTES = 576 << 10  # 64 channels of transformed weights
WINOGRAD_BYTES = 512 << 10  # transformed input of a block of tiles
WINOGRAD_FEW_TILES = _native.WINOGRAD_FEW  # of a batch: more make up for storing transformed weights (Zen 5)
WINOGRAD_HELD_BYTES = 16 << 20  # and for such a batch a plan holds no more of them than a cache does
# Winograd is chosen from here on (measured on Zen 4, one image, against the direct kernels); all are of one image, so
# that a batch split changes nothing. Fewer tiles than these do not earn back the transforms.
WINOGRAD_CHANNELS = 6  # summed: fewer do not outweigh the transform back
WINOGRAD_OUTPUTS = 3
WINOGRAD_MACS = 1 << 20
WINOGRAD_SIZE_PREPARED = 7  # outputs a side where a plan holds the transformed weights
WINOGRAD_SIZE = 12  # a single call transforms its weights for one image;
WINOGRAD_SIZE_WIDE = 7  # with so many channels that arithmetic outweighs all else, also from here
WINOGRAD_WIDE = 128
WINOGRAD_CHANNELS_DILATED = 64
WINOGRAD_SIZE_GRADIENT = 4  # of the weight, whose sums are transformed once; of a phase where dilated
WINOGRAD_TILES_GRADIENT = 9  # of the whole batch
WINOGRAD_CHANNELS_GRADIENT = 32
# Smaller maps take tiles of 2 x 2, which waste less of them and need 16/36 of the transformed weights. A plan is then
# 1.1 to 1.7 times as fast as direct at one image and 1.5 to 2.1 times at 32. A single call is 0.65 to 1.06 times as
# fast at one image and 1.3 to 2.0 times at 32, where the choice counts for more (Zen 4, two threads).
WINOGRAD_SIZE_SMALL = 4
WINOGRAD_MACS_SMALL = 1 << 19
WINOGRAD_CHANNELS_SMALL_PREPARED = 64
WINOGRAD_CHANNELS_SMALL = 32  # for a single call
WINOGRAD_CHANNELS_SMALLEST = 128  # for one below 7 x 7 outputs
# At stride 2, for 3 x 3 taps and for 2 x 2 in every phase: channels, outputs a side and multiply-adds of an image (of a
# phase) from which on the transforms pay (measured on Zen 5).
PHASES_PAY = {3: (64, 7, 16 << 20), 2: (32, 4, 4 << 20)}
PHASES_SIZE_LARGE = 24  # outputs a side from which on tiles of 4 x 4 outputs waste little of the map
# Sums of so many terms and more are made in blocks, whose sums are added in twice the precision (drivers/totals.pxi):
# the error of a sum does not grow with its length, and the bounds count no more terms.
LONG_SUM = _native.LONG_SUM
# Winograd's error bound: |y - y_ref| <= (C + terms) u * sum over c of max|x[n, c]| * sum|w[o, c]|, C summed channels
# (tiles for the weight gradient, channels x rows along rows), u the unit roundoff, the maximum over the plane: a tile's
# error follows the largest of its pixels. Random, one-signed and constant data stayed below 0.8 of (C + 16) u (tests),
# planes of very different scales and few channels in 8 of 100,000 problems above it, up to 1.48 times (reliability
# board). What is lost near the smallest numbers: `testing.comparisons.WINOGRAD_ADDED`.
WINOGRAD_TERMS = {
    "winograd": 32, "winograd_2x2": 4, "winograd_phases": 4, "winograd_phases_4x4": 4, "winograd_rows": 32,
}  # fmt: skip


class Winograd(NamedTuple):
    """A kind of Winograd convolution (fc_winograd in src/fastconv.h); what a tile has along each axis."""

    number: int  # fc_winograd_kind
    tile: int  # outputs
    stride: int
    taps: int
    elements: int  # products
    weights: int  # different transformed weights

    @property
    def extent(self) -> int:
        """Inputs along an axis."""
        return (self.tile - 1) * self.stride + self.taps


_KINDS = _native.winograd_kinds()
WINOGRAD = {
    "winograd": Winograd(*_KINDS["4x4"]),
    "winograd_2x2": Winograd(*_KINDS["2x2"]),
    "winograd_phases": Winograd(*_KINDS["2x2 at stride 2"]),
    "winograd_phases_4x4": Winograd(*_KINDS["4x4 at stride 2"]),
}
WINOGRAD_TWO_TAPS = Winograd(*_KINDS["2x2 of two taps"])  # "winograd_phases" of an input gradient, in every phase


class Strassen(NamedTuple):
    """A 1 x 1 convolution as a product of blocks in fewer multiplications (fc_strassen in src/fastconv.h)."""

    levels: int

    @property
    def side(self) -> int:
        """Blocks of pixels, of channels and of outputs: the pixels of a tile."""
        return 1 << self.levels

    @property
    def products(self) -> int:
        """Products of blocks, in place of side ** 3."""
        return 7 if self.levels == 1 else 49


# Strassen's error bound: |y - y_ref| <= (C + 2) u * C * max|x[n]| * max|w|, C summed channels: an error follows the
# largest of the blocks. Random, one-signed, constant and badly scaled data stayed below 0.13 of it (tests).
STRASSEN = {"strassen": Strassen(1), "strassen_twice": Strassen(2)}
STRASSEN_TILES = {1: 50, 2: 33}  # of a block, by levels: their factors fill the second-level cache (measured on Zen 5)
STRASSEN_PANEL_BYTES = 256 << 10  # a panel of weights that may be read again and again from the second-level cache
STRASSEN_PART = 13  # for so many tiles each time, whose products then stay in the first level
# From here on it pays: pixels of an image, channels, outputs, weights, by levels (measured on Zen 5, one image).
STRASSEN_PAYS = {1: (48, 512, 512, 1 << 18), 2: (128, 256, 256, 1 << 17)}


class Line(NamedTuple):
    """Winograd along rows (drivers/winograd_rows.pxi): so many elements for four outputs of seven taps at stride 2."""

    elements: int
    taps: int
    stride: int


LINE = {"winograd_rows": Line(_native.ROWS_ELEMENTS, _native.ROWS_TAPS, _native.ROWS_STRIDE)}
# F(4, 4) on points 0, 1, -1, 2, -2, 1/2, infinity for the even columns of a kernel, F(4, 3) of winograd.h for the odd.
LINE_EVEN = np.array([[p**k for k in range(4)] for p in (0, 1, -1, 2, -2, 0.5)] + [[0, 0, 0, 1]])
LINE_ODD = np.array([[p**k for k in range(3)] for p in (0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))] + [[0, 0, 1]])
LINE_TILE = _native.ROWS_TILE  # outputs of a row
LINE_CHANNELS = 4  # at most, and so many outputs at least: first layers
LINE_OUTPUTS = 16
LINE_SIZE = 24  # outputs a row
LINE_ROWS = 7  # of a block (measured on Zen 5)


def grain(algorithm: str, g: Geometry, gradient: bool = False) -> tuple[int, int]:
    """Rows and columns of outputs that an algorithm makes together: at multiples of these its sums begin anew.

    A block of outputs that begins and ends at such multiples (or where the outputs end), and is given all the inputs
    that the whole has under the windows of its last grain, has the bits of the whole. Outputs are those of the
    convolution `g` or, for its input `gradient`, that of a transposed convolution, the positions of its input.
    """
    size = g.input_size if gradient else g.output_size
    whole = (max(1, size[0]), max(1, size[1]))
    if algorithm == "direct":
        return 1, 1
    if kind := WINOGRAD.get(algorithm):  # tiles lie within a phase of the dilation and, of a gradient, of the stride
        tile = WINOGRAD_TWO_TAPS.tile if gradient and kind.stride > 1 else kind.tile
        rows, columns = (d * (s if gradient else 1) for d, s in zip(g.dilation, g.stride, strict=True))
        return tile * rows, tile * columns
    if algorithm in LINE and not gradient:
        return 1, LINE_TILE
    if algorithm in STRASSEN and not gradient:  # neighbouring pixels in the order of the image, from row to row
        side = STRASSEN[algorithm].side
        return side // gcd(side, whole[1]), whole[1]
    if algorithm == "auto" or algorithm in STRASSEN or algorithm in LINE:
        return whole
    raise ConvError(f"nobody has said which outputs algorithm {algorithm!r} makes together: see choice.grain.")


class Pass(NamedTuple):
    """One run of the direct driver: output pixel i sums x[i * stride + tap] over its taps."""

    tap_y: tuple[int, ...]
    tap_x: tuple[int, ...]
    rows: tuple[int, ...]  # which rows and columns of the kernel the taps belong to
    columns: tuple[int, ...]
    stride: tuple[int, int]
    phase: tuple[int, int]  # the outputs it writes: every `step`-th row and column from here
    step: tuple[int, int]
    merge: tuple[int, int] = (1, 1)  # phases whose outputs share a panel, rows and columns of them

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of an output of `size` that this pass writes."""
        return (
            max(0, -(-(size[0] - self.phase[0]) // self.step[0])),
            max(0, -(-(size[1] - self.phase[1]) // self.step[1])),
        )


class Blocking(NamedTuple):
    """Loop sizes of one pass of the direct driver."""

    source: int
    images: int  # of a tile
    tile: tuple[int, int]
    reduction: int
    panels_per_task: int


def forward_passes(g: Geometry) -> list[Pass]:
    """The convolution itself: one pass."""
    rows, columns = range(g.kernel_size[0]), range(g.kernel_size[1])
    return [
        Pass(
            tuple(i * g.dilation[0] - g.padding[0][0] for i in rows),
            tuple(j * g.dilation[1] - g.padding[1][0] for j in columns),
            tuple(rows),
            tuple(columns),
            g.stride,
            (0, 0),
            (1, 1),
        )
    ]


Phase = tuple[int, tuple[int, ...], tuple[int, ...]]


def _phases(kernel: int, stride: int, dilation: int, pad: int) -> Iterator[Phase]:
    """Residues of the input position modulo the stride that meet a tap: the taps, by rising offset in grad_output."""
    for residue in sorted({(i * dilation - pad) % stride for i in range(kernel)}):
        taps = [i for i in reversed(range(kernel)) if (residue + pad - i * dilation) % stride == 0]
        yield residue, tuple(taps), tuple((residue + pad - i * dilation) // stride for i in taps)


def input_gradient_passes(g: Geometry) -> list[Pass]:
    """The input gradient in phases of the stride, each a stride-1 convolution of grad_output: no inserted zeros.

    Phases without a tap are left out: at most as many passes as the kernel has taps, however long the stride.
    """
    vertical = list(_phases(g.kernel_size[0], g.stride[0], g.dilation[0], g.padding[0][0]))
    horizontal = list(_phases(g.kernel_size[1], g.stride[1], g.dilation[1], g.padding[1][0]))
    return [
        Pass(tap_y, tap_x, rows, columns, (1, 1), (y, x), g.stride)
        for y, rows, tap_y in vertical
        for x, columns, tap_x in horizontal
    ]


def _exchanged_phases(
    outputs: int, taps: int, along: int, per_tap: int, dilation: int, shift: int
) -> tuple[int, int, list[Phase]]:
    """(step, stride, phases) of outputs i that meet position (along * i + per_tap * t + shift) / dilation of the kernel
    under element t of the image, where that is whole."""
    step = dilation // math.gcd(dilation, along)
    phases = []
    for first in range(min(step, outputs)):
        at = [along * first + per_tap * t + shift for t in range(taps)]
        met = [t for t in range(taps) if at[t] % dilation == 0]
        phases.append((first, tuple(met), tuple(at[t] // dilation for t in met)))
    return step, along * step // dilation, phases


def exchanged_passes(g: Geometry, gradient: bool) -> list[Pass]:
    """The convolution, or its input gradient, with the kernel as the image that the other array is laid over.

    `rows` and `columns` are those of the other array: a pixel of the image x[n, c] is one tap for all outputs (o) of
    w[o, c], which take the place of the batch, and the batch takes that of the outputs. The terms of a sum keep their
    order. The kernel is read backwards in the forward pass, where its positions fall as outputs rise.
    """
    axes = []
    for axis in range(2):
        stride, dilation, pad, kernel = g.stride[axis], g.dilation[axis], g.padding[axis][0], g.kernel_size[axis]
        if gradient:  # input position h meets q of grad_output at (h + pad - stride q) / dilation of the kernel
            axes.append(_exchanged_phases(g.input_size[axis], g.output_size[axis], 1, -stride, dilation, pad))
        else:  # kernel - 1 - (h + pad - stride q) / dilation
            shift = dilation * (kernel - 1) - pad
            axes.append(_exchanged_phases(g.output_size[axis], g.input_size[axis], stride, -1, dilation, shift))
    (step_y, stride_y, vertical), (step_x, stride_x, horizontal) = axes
    return [
        Pass(tap_y, tap_x, rows, columns, (stride_y, stride_x), (y, x), (step_y, step_x))
        for y, rows, tap_y in vertical
        for x, columns, tap_x in horizontal
    ]


def merged_phases(passes: Sequence[Pass], outputs: int, groups: int, compute: int) -> Pass | None:
    """One pass for all phases of few outputs, side by side in the lanes of a panel; None where that saves nothing.

    A phase meets all taps that any phase has; its weights are zero at those of others (`call._merged_weights`). Its
    kernel, rows x columns, is numbered anew. What is not finite must not meet those zeros.
    """
    step = passes[0].step if passes else (1, 1)
    _, lanes, vectors, _ = _native.tile_shape(compute)
    if groups != 1 or len(passes) < 2 or len(passes) != prod(step) or len(passes) * outputs > lanes * vectors:
        return None
    tap_y = tuple(sorted({tap for p in passes for tap in p.tap_y}))
    tap_x = tuple(sorted({tap for p in passes for tap in p.tap_x}))
    if not tap_y or not tap_x:  # padding alone
        return None
    apart = sum(len(p.tap_y) * len(p.tap_x) for p in passes) * -(-outputs // lanes)
    if len(tap_y) * len(tap_x) * -(-len(passes) * outputs // lanes) > MERGING_GAIN * apart:
        return None
    rows, columns = tuple(range(len(tap_y))), tuple(range(len(tap_x)))
    return Pass(tap_y, tap_x, rows, columns, (1, 1), (0, 0), step, step)


def _span(taps: Sequence[int]) -> int:
    return max(taps) - min(taps) + 1 if taps else 0


def _region_shape(
    p: Pass, tile: tuple[int, int], input_size: tuple[int, int] | None = None
) -> tuple[int, int]:
    """Rows and columns packed under a tile; a single tap packs every stride-th row (column) alone.

    Taps that meet an input of `input_size` lie no farther apart than it and the tile reach.
    """
    steps = (1 if len(p.tap_y) == 1 else p.stride[0], 1 if len(p.tap_x) == 1 else p.stride[1])
    spans = [_span(p.tap_y), _span(p.tap_x)]
    if input_size:
        spans = [min(spans[axis], input_size[axis] + (tile[axis] - 1) * p.stride[axis]) for axis in range(2)]
    return (tile[0] - 1) * steps[0] + spans[0], (tile[1] - 1) * steps[1] + spans[1]


@lru_cache(maxsize=1024)
def walked_taps(taps: tuple[int, ...], stride: int, outputs: int, extent: int, tile: int) -> int:
    """Output positions times the taps that are walked along an axis, tile by tile: those that meet the input."""
    order = sorted(taps)
    total = 0
    for first in range(0, outputs, tile):
        count = min(tile, outputs - first)
        low, high = -(first + count - 1) * stride, extent - 1 - first * stride
        total += count * (bisect_right(order, high) - bisect_left(order, low))
    return total


def useful_taps(p: Pass, size: tuple[int, int], input_size: tuple[int, int]) -> Pass:
    """A pass into outputs of `size` without the taps that meet padding alone, whatever the output."""

    def met(taps: tuple[int, ...], axis: int) -> list[int]:
        last = (p.output_size(size)[axis] - 1) * p.stride[axis]
        inside = [i for i, tap in enumerate(taps) if -last <= tap < input_size[axis]]
        return list(range(inside[0], inside[-1] + 1)) if inside else []

    rows, columns = met(p.tap_y, 0), met(p.tap_x, 1)
    if len(rows) == len(p.rows) and len(columns) == len(p.columns):
        return p
    return p._replace(
        tap_y=tuple(p.tap_y[i] for i in rows), tap_x=tuple(p.tap_x[j] for j in columns),
        rows=tuple(p.rows[i] for i in rows), columns=tuple(p.columns[j] for j in columns),
    )  # fmt: skip


def _split(total: int, most: int) -> int:
    """The size of equal pieces of `total`, none above `most`."""
    most = max(1, most)
    return -(-total // -(-total // most)) if total else 1


def _task_cycles(
    pixels: int, panels: int, steps: int, register: tuple[int, int, int], region: int, packed: float
) -> float:
    """About how long a task of the direct driver takes: its register tiles, the region that it packs, and the weights,
    of which it packs the share `packed`."""
    rows, vectors, lanes = register
    tiles = -(-pixels // rows)
    return (
        panels * (tiles * (steps * rows * vectors + CALL_CYCLES) + packed * WEIGHT_CYCLES * steps * vectors)
        + PACK_CYCLES * region / lanes
        + TASK_CYCLES
    )


def _shared_out(
    most_rows: int,
    columns: int,
    panels: int,
    size: tuple[int, int],
    groups: int,
    images: int,
    threads: int,
    cycles: Callable[[tuple[int, int], int, int], float],
    one_by_one: bool = False,
) -> tuple[int, int]:
    """Rows of a tile, up to `most_rows`, and panels of a task for which the threads end soonest and together.

    `cycles(tile, panels, tasks)` is a task's time; so many tasks in a row use the same panels. The last tile of the
    rows may be shorter; a thread that runs out of long tasks takes the short ones. With `one_by_one` a task may have a
    single panel, however many there are.
    """
    best = (most_rows, panels)
    soonest = math.inf
    across = max(1, images) * groups * -(-max(1, size[1]) // columns)
    for pieces in range(-(-max(1, size[0]) // most_rows), max(1, size[0]) + 1):
        tile_y = _split(size[0], -(-max(1, size[0]) // pieces))
        full, rest = divmod(max(1, size[0]), tile_y)
        if pieces > full + (rest > 0):
            continue
        chunk_counts = sorted({-(-panels // -(-panels // n)) for n in range(1, min(panels, 4 * threads) + 1)})
        if one_by_one and chunk_counts[-1] < panels:
            chunk_counts.append(panels)
        for chunks in chunk_counts:
            count = -(-panels // chunks)
            tasks = across // groups * (full + (rest > 0))
            long = cycles((tile_y, columns), count, tasks)
            short = cycles((rest, columns), count, tasks) if rest else 0.0
            rounds, left = divmod(full * across * chunks, threads)
            end = rounds * long
            waiting = rest and across * chunks * short
            if left:
                waiting = max(0.0, waiting - (threads - left) * long)
                end += long
            if waiting:
                end += math.ceil(waiting / short / threads) * short
            if end < soonest * 0.995:  # larger tiles come first: a smaller one must earn its place
                soonest, best = end, (tile_y, count)
        if full * across >= 16 * threads and pieces > 1:
            break
    return best


class _Tile(NamedTuple):
    """Outputs computed together by the direct driver, and about how many cycles an image then takes."""

    rows: int
    columns: int
    images: int
    cycles: float


def _smallest_walk(
    p: Pass, channels: int, outputs: int, size: tuple[int, int], input_size: tuple[int, int],
    register_tile: tuple[int, int, int, int], largest: tuple[int, int], images: int,
) -> _Tile:  # fmt: skip
    """Of the tiles up to the `largest` the one that takes least: a small one walks fewer taps that meet padding in most
    of its pixels, a large one fills the register tiles."""
    _, lanes, vectors, rows = register_tile
    vectors_of_all = -(-outputs // lanes)
    panels = -(-vectors_of_all // vectors)
    best = _Tile(*largest, 1, math.inf)
    tile_y = largest[0]
    while True:
        walked_y = walked_taps(p.tap_y, p.stride[0], size[0], input_size[0], tile_y)
        tile_x = largest[1]
        while True:
            walked = walked_y * walked_taps(p.tap_x, p.stride[1], size[1], input_size[1], tile_x)
            together = images_of_a_tile(tile_y * tile_x, images, rows)
            pixels = tile_y * tile_x * together
            calls = -(-pixels // rows)
            region = prod(_region_shape(p, (tile_y, tile_x), input_size)) * channels * together
            tiles = -(-size[0] // tile_y) * -(-size[1] // tile_x)
            cycles = vectors_of_all * channels * walked * calls * rows / pixels + tiles / together * (
                panels * calls * CALL_CYCLES + PACK_CYCLES * region / lanes + TASK_CYCLES
            )
            if cycles < 0.95 * best.cycles:  # larger tiles come first
                best = _Tile(tile_y, tile_x, together, cycles)
            if tile_x == 1:
                break
            tile_x = -(-tile_x // 2)
        if tile_y == 1:
            return best
        tile_y = -(-tile_y // 2)


def images_of_a_tile(pixels: int, images: int, rows: int) -> int:
    """Images that share a tile of so few pixels that they would not fill the register tiles, `rows` each."""
    return _split(images, min(images, 8 * rows // pixels)) if images > 1 and pixels <= 4 * rows else 1


# An exchange keeps the order of the terms, and so the bits, but for long sums, whose blocks it cuts elsewhere: their
# choice must not look at the batch, and it is made only where most of the kernel meets padding.
EXCHANGE_GAIN = 0.8  # of the cycles, both estimated, at which it is taken
EXCHANGE_LONG = 4  # times as large as the image: the kernel of a long sum
EXCHANGE_LANES = 16  # images that the choice for a long sum counts on
MOST_EXCHANGED_PASSES = 64  # phases of the dilation


def exchange_pays(
    passes: Sequence[Pass], exchanged: Sequence[Pass], channels: int, outputs: int, size: tuple[int, int],
    input_size: tuple[int, int], kernel_size: tuple[int, int], images: int,
    register_tile: tuple[int, int, int, int],
) -> bool:  # fmt: skip
    """Whether laying the image over the kernel (`exchanged_passes`) takes less time than the kernel over the image."""

    def cycles(
        some: Sequence[Pass], outputs: int, images: int, input_size: tuple[int, int]
    ) -> float:
        total = 0.0
        for p in some:
            own = p.output_size(size)
            largest = (_split(own[0], -(-MOST_PIXELS // own[1])), _split(own[1], MOST_PIXELS))
            total += images * _smallest_walk(
                p, channels, outputs, own, input_size, register_tile, largest, images
            ).cycles
            total += WEIGHT_CYCLES * len(p.rows) * len(p.columns) * channels * -(-outputs // register_tile[1])
        return total

    return len(exchanged) <= MOST_EXCHANGED_PASSES and (
        cycles(exchanged, images, outputs, kernel_size) < EXCHANGE_GAIN * cycles(passes, outputs, images, input_size)
    )


IDLE_CHANNELS = 4  # of a group


def lanes_idle(passes: Sequence[Pass], channels: int, input_size: tuple[int, int]) -> bool:
    """Whether the depthwise driver would cut the outputs into rectangles of hardly any pixels: where the kernel is
    twice as large as what it is laid over. A piece of the image that is computed apart is no larger, so that it agrees.
    """
    return channels >= IDLE_CHANNELS and all(
        _span(taps) >= 2 * extent for p in passes for taps, extent in zip((p.tap_y, p.tap_x), input_size, strict=True)
    )


def walks_padding(p: Pass, size: tuple[int, int], input_size: tuple[int, int], tile: tuple[int, int]) -> bool:
    """Whether a quarter more taps are walked in tiles of such a size than in single pixels."""
    walked = useful = 1
    for taps, stride, outputs, extent, together in zip(
        (p.tap_y, p.tap_x), p.stride, size, input_size, tile, strict=True
    ):
        walked *= walked_taps(taps, stride, outputs, extent, together)
        useful *= walked_taps(taps, stride, outputs, extent, 1)
    return 4 * walked > 5 * useful


def direct_blocking(
    p: Pass,
    channels: int,
    outputs: int,
    groups: int,
    size: tuple[int, int],
    input_size: tuple[int, int],
    compute: int,
    threads: int,
    in_place: bool,
    images: int = 1,
    prepared: bool = False,
    pads_zeros: bool = True,
) -> Blocking:
    """Loop sizes of a pass: `channels`, `outputs` of a group, `size` the pass's output rows, columns.

    The number of images and whether a plan holds the weights decide how tasks are cut, and so nothing in the results.
    """
    element, lanes, vectors, rows = _native.tile_shape(compute)
    width = lanes * vectors
    reduction = max(32, WEIGHT_SLICE_BYTES // (width * element))
    leading = channels + (lanes if channels >= 64 and channels * element % 1024 == 0 else 0)
    panels = -(-outputs // width) if outputs else 1

    def region_bytes(tile: tuple[int, int]) -> int:
        height, breadth = _region_shape(p, tile, input_size if pads_zeros else None)
        return height * breadth * leading * element

    source = IN_PLACE if in_place else REGION
    tile_x = _split(size[1], MOST_PIXELS)
    if in_place:
        most = max(rows, min(MOST_PIXELS, REGION_BYTES // max(1, channels * element)))
        tile_x = _split(size[1], most)
        tile_y = max(1, most // tile_x)
    else:
        while tile_x > 2 * rows and region_bytes((1, tile_x)) > REGION_BYTES:
            tile_x = _split(size[1], tile_x // 2)
        tile_y = 1
        while (
            tile_y < size[0]
            and (tile_y + 1) * tile_x <= MOST_PIXELS
            and region_bytes((tile_y + 1, tile_x)) <= REGION_BYTES
        ):
            tile_y += 1
        if region_bytes((1, tile_x)) > GATHER_ABOVE_BYTES:
            source, tile_x, tile_y = GATHER, _split(size[1], 4 * rows), 1
            reduction = 256
    tile_y = _split(size[0], tile_y)
    together = 1
    steps = all_steps = len(p.rows) * len(p.columns) * channels
    if source == REGION and pads_zeros and min(size) > 0 and walks_padding(p, size, input_size, (tile_y, tile_x)):
        tile_y, tile_x, together, _ = _smallest_walk(
            p, channels, outputs, size, input_size, (element, lanes, vectors, rows), (tile_y, tile_x), images
        )
        walked = zip((p.tap_y, p.tap_x), p.stride, size, input_size, (tile_y, tile_x), strict=True)
        steps = max(1, channels * prod(walked_taps(*axis) for axis in walked) // prod(size))
    elif source != GATHER and (tile_y, tile_x) == size:
        together = images_of_a_tile(tile_y * tile_x, images, rows)
        # beyond the second level too where fewer would not fill the register tiles: all weights pass for each tile
        while source == REGION and together * prod(size) > 2 * rows and together * region_bytes(size) > REGION_BYTES:
            together = -(-together // 2)

    panels_per_task = panels
    if threads > 1 or steps < all_steps:  # small tiles would pack all weights again and again
        weights = all_steps / max(1, steps)
        tile_y, panels_per_task = _shared_out(
            tile_y, tile_x, panels, size, groups, -(-images // together), threads,
            lambda tile, count, tasks: _task_cycles(
                together * tile[0] * tile[1], count, steps, (rows, vectors, lanes),
                0 if in_place else together * region_bytes(tile) // element,
                # a thread keeps the panel that it has packed
                0.0 if prepared else weights * (min(1.0, threads / tasks) if count == 1 else 1.0),
            ),
            steps < all_steps,
        )  # fmt: skip
    return Blocking(source, together, (tile_y, tile_x), reduction, panels_per_task)


# Pixels of a gradient's image (or of the input) up to which the weight gradient is a convolution of the input by
# grad_output, whose sums run over the images in the micro-kernel (measured on Zen 4).
FEW_PIXELS = 8


# Groups of more channels than these leave the lanes idle less in the direct kernels (measured on Zen 4).
PICKED_CHANNELS = 8
PICKED_CHANNELS_GRADIENT = 8  # of the weight
# A lane an output channel (drivers/depthwise.pxi): groups whose outputs would not fill a vector of the direct kernel.
LANE_REGION_BYTES = 384 << 10  # the packed input of one chunk stays in the second level, its output beside it


def by_lanes(
    p: Pass, channels: int, outputs: int, groups: int, compute: int, most: int = PICKED_CHANNELS
) -> bool:
    """Whether a direct pass runs in the kernels with a lane an output channel: depthwise, or many small groups."""
    if groups == 1 or channels == 0 or outputs == 0 or not p.tap_y or not p.tap_x:
        return False
    _, lanes, _, _ = _native.tile_shape(compute)
    if channels > 1 and not _native.lanes_picked(compute, channels, outputs):
        if outputs >= lanes or channels > 2 * lanes:
            return False
    elif max(channels, outputs if channels > 1 else 1) > most:
        return False
    height, breadth = _region_shape(p, (1, 16))
    return height * breadth * channels * prod(_native.lane_chunk(compute)) <= GATHER_ABOVE_BYTES


class LaneBlocking(NamedTuple):
    """Loop sizes of one pass of the depthwise driver; a chunk is so many output channels side by side."""

    tile: tuple[int, int]
    chunks_per_task: int


@lru_cache(maxsize=256)
def lane_blocking(
    p: Pass,
    channels: int,
    outputs: int,
    groups: int,
    size: tuple[int, int],
    chunk: tuple[int, int],
    threads: int,
    in_place: bool,
) -> LaneBlocking:
    """Loop sizes for one image; `in_place` reads a channels-last input as it lies.

    A `chunk` is so many bytes an element and so many output channels, as `_native.lane_chunk` says.
    """
    element, width = chunk
    chunks = -(-groups * outputs // width)

    span_y, span_x = _span(p.tap_y), _span(p.tap_x)

    def row_bytes(columns: int) -> int:
        return ((columns - 1) * p.stride[1] + span_x) * channels * width * element

    tile_x = _split(size[1], MOST_PIXELS)
    if not in_place:
        while tile_x > 16 and span_y * row_bytes(tile_x) > LANE_REGION_BYTES:
            tile_x = _split(size[1], tile_x // 2)
    tile_y = MOST_PIXELS // tile_x
    if not in_place:
        tile_y = min(tile_y, (LANE_REGION_BYTES // row_bytes(tile_x) - span_y) // p.stride[0] + 1)
    tile_y = max(1, min(size[0], tile_y))
    tile_y = _split(size[0], tile_y)
    chunks_per_task = chunks
    if threads > 1:
        tiles = -(-max(1, size[1]) // tile_x)
        while -(-max(1, size[0]) // tile_y) * tiles < 4 * threads and tile_y > 8:
            tile_y = _split(size[0], tile_y - 1)
        tiles *= -(-max(1, size[0]) // tile_y)
        chunks_per_task = max(1, chunks // -(-4 * threads // tiles))
    return LaneBlocking((tile_y, tile_x), chunks_per_task)


@lru_cache(maxsize=64)
def lane_taps(passes: tuple[Pass, ...]) -> tuple[Pass, int]:
    """The pass with the most taps, and the taps that are packed for all."""
    rows = {row for p in passes for row in p.rows}
    columns = {column for p in passes for column in p.columns}
    return max(passes, key=lambda p: len(p.rows) * len(p.columns)), len(rows) * len(columns)


@lru_cache(maxsize=256)
def lane_gradient_parts(g: Geometry, chunk: tuple[int, int]) -> int:
    """Pieces of the pixel rows that the depthwise weight gradient sums apart, by shape alone: some rows each."""
    element, width = chunk
    chunks = -(-g.out_channels // width)
    sums_bytes = chunks * prod(g.kernel_size) * (g.in_channels // g.groups) * width * element
    rows = g.batch * g.output_size[0]
    return max(1, min(rows // 7, 32, -(-64 // chunks), PARTIAL_SUMS_BYTES // sums_bytes))


class LaneGradientBlocking(NamedTuple):
    """Loop sizes of the weight gradient with a lane an output channel; a tile is a piece of the sum."""

    tile: tuple[int, int]
    parts: int


def tap_spacing(p: Pass) -> tuple[int, int]:
    """The dilation of a pass of several equally spaced taps along both axes."""
    return p.tap_y[1] - p.tap_y[0], p.tap_x[1] - p.tap_x[0]


@lru_cache(maxsize=256)
def dilation_phases(p: Pass, size: tuple[int, int]) -> tuple[Pass, ...]:
    """A pass into outputs of `size` as one for every phase of its dilation, each of which reads every d-th pixel."""
    spacing = tap_spacing(p)
    if spacing == (1, 1):
        return (p,)
    return tuple(
        p._replace(
            tap_y=tuple(y + tap for tap in p.tap_y), tap_x=tuple(x + tap for tap in p.tap_x), stride=spacing,
            phase=(y, x), step=spacing,
        )
        for y in range(min(spacing[0], size[0]))
        for x in range(min(spacing[1], size[1]))
    )  # fmt: skip


def most_tiles(scratch: Callable[[int], int], most: int, threads: int) -> int:
    """The tiles of a block whose scratch leaves every thread its part of the workspace, up to `most`, at least one."""
    fitting = bisect_right(range(1, most + 1), WORKSPACE_BYTES // threads, key=scratch)
    return max(1, fitting)


def winograd_kind(algorithm: str, p: Pass) -> Winograd | None:
    """The kind of Winograd that computes a pass, None for another algorithm."""
    kind = WINOGRAD.get(algorithm)
    return WINOGRAD_TWO_TAPS if kind and len(p.tap_y) == 2 else kind


def why_not_winograd(
    passes: Sequence[Pass], channels: int, outputs: int, groups: int, dtype: np.dtype[Any], padding_mode: str,
    purpose: str = "call", algorithm: str = "winograd",
) -> str | None:
    """Why Winograd cannot compute these passes; None if it can.

    A dilated pass is as many plain ones as the dilation has phases, each on every d-th pixel; padding that repeats
    pixels mixes them.
    """
    p = passes[0]
    taps = (len(p.tap_y), len(p.tap_x))
    stride = p.stride if p.stride != (1, 1) else p.step
    gradient = p.step != (1, 1)
    wanted = WINOGRAD[algorithm].stride
    if dtype != np.float32:
        return f"the element type is {dtype}, not float32"
    if wanted == 2 and purpose == "weight gradient":
        return "it has no weight gradient"
    if gradient and algorithm == "winograd_phases_4x4":
        return "an input gradient has tiles of 2 x 2 outputs alone"
    if stride != (wanted, wanted):
        return f"the stride is {stride}, not {(wanted, wanted)}"
    if gradient and any((len(p.tap_y), len(p.tap_x)) != (2, 2) for p in passes):
        return "not every phase of the kernel has 2 x 2 taps, as one of 4 x 4 has"
    if not gradient and taps != (3, 3):
        return f"the kernel is {taps[0]} x {taps[1]}, not 3 x 3"
    if tap_spacing(p) != (1, 1) and (wanted == 2 or (purpose != "weight gradient" and padding_mode != "zeros")):
        return f"the kernel is dilated by {tap_spacing(p)}, which it does not compute for " + (
            f"padding_mode={padding_mode!r}" if wanted == 1 else "a stride of 2"
        )
    if groups != 1:
        return f"groups is {groups}, not 1"
    if channels == 0 or outputs == 0:
        return "there are no channels"
    return None


def why_not_strassen(
    passes: Sequence[Pass], channels: int, outputs: int, groups: int, dtype: np.dtype[Any], padding_mode: str,
    purpose: str, kind: Strassen,
) -> str | None:
    """Why Strassen's product cannot compute these passes; None if it can."""
    p = passes[0]
    if dtype != np.float32:
        return f"the element type is {dtype}, not float32"
    _, lanes, vectors, _ = _native.tile_shape(0)  # fc_compute: float32
    if purpose == "weight gradient":
        return "it has no weight gradient"
    if purpose == "input gradient" and padding_mode != "zeros":
        return f"padding_mode={padding_mode!r} repeats pixels, whose gradients are summed in slices of the channels"
    if len(p.rows) * len(p.columns) != 1:
        return f"the kernel is {len(p.rows)} x {len(p.columns)}, not 1 x 1"
    if groups != 1:
        return f"groups is {groups}, not 1"
    if channels == 0 or channels % (kind.side * lanes):
        return f"{channels} channels are not {kind.side} times some vectors of {lanes}"
    if outputs == 0 or outputs % (kind.side * lanes * vectors):
        return f"{outputs} output channels are not {kind.side} times some panels of {lanes * vectors}"
    return None


def choose_strassen(
    passes: Sequence[Pass], channels: int, outputs: int, groups: int, size: tuple[int, int],
    dtype: np.dtype[Any], purpose: str,
) -> tuple[str, str] | None:
    """(the algorithm, the reason) for a 1 x 1 convolution with enough work, the most levels that pay.

    Only plans take it by themselves: a call would have to sum the weights for one image, pieces of an image that are
    computed apart (`tiles`, `dask`) would have other bits than the whole, and the weights of a network come from memory
    for every run, where their sums take longer (ResNet-50: 275 MB in place of 172, and no faster).
    """
    if purpose != "plan":
        return None
    for name, kind in reversed(STRASSEN.items()):
        work = (prod(size), channels, outputs, channels * outputs)
        if any(number < least for number, least in zip(work, STRASSEN_PAYS[kind.levels], strict=True)):
            continue
        if not why_not_strassen(passes, channels, outputs, groups, dtype, "zeros", purpose, kind):
            return name, (
                f"1x1 in float32 with enough work: {kind.products} multiplications of blocks instead of "
                f"{kind.side ** 3}"
            )
    return None


def why_not_line(
    passes: Sequence[Pass], channels: int, outputs: int, groups: int, dtype: np.dtype[Any], padding_mode: str
) -> str | None:
    """Why Winograd along rows cannot compute these passes; None if it can."""
    p, kind = passes[0], LINE["winograd_rows"]
    if dtype != np.float32:
        return f"the element type is {dtype}, not float32"
    if p.step != (1, 1) or len(passes) > 1 or p.tap_x != tuple(range(p.tap_x[0], p.tap_x[0] + kind.taps)):
        return f"it is for the forward pass of kernels of {kind.taps} columns that are not dilated"
    if p.tap_y != tuple(range(p.tap_y[0], p.tap_y[0] + len(p.tap_y))):
        return "the kernel is dilated"
    if p.stride[1] != kind.stride:
        return f"the stride along a row is {p.stride[1]}, not {kind.stride}"
    if groups != 1:
        return f"groups is {groups}, not 1"
    if padding_mode != "zeros":
        return f"padding_mode is {padding_mode!r}, not 'zeros'"
    if not 0 < channels <= LINE_CHANNELS or outputs == 0:
        return f"there are {channels} channels, not 1 to {LINE_CHANNELS}"
    return None


class LineBlocking(NamedTuple):
    """Loop sizes of Winograd along rows."""

    rows: int  # of a block


@lru_cache(maxsize=256)
def line_blocking(
    p: Pass, channels: int, size: tuple[int, int], register_tile: tuple[int, int, int, int], threads: int
) -> LineBlocking:
    """Loop sizes for an output of `size`."""

    def scratch(rows: int) -> int:
        return _native.winograd_rows_scratch_bytes(FLOAT32, channels, len(p.tap_y), p.stride[0], size[1], rows)

    return LineBlocking(most_tiles(scratch, min(LINE_ROWS, max(1, size[0])), threads))


class StrassenBlocking(NamedTuple):
    """Loop sizes of the Strassen driver."""

    tiles: int  # of a block
    part: int  # of them, multiplied at a time
    reduction: int
    panels_per_task: int


@lru_cache(maxsize=256)
def strassen_blocking(
    kind: Strassen, channels: int, outputs: int, images: int, pixels: int, register_tile: tuple[int, int, int, int],
    threads: int,
) -> StrassenBlocking:
    """Loop sizes for `images` of so many output pixels each."""
    element, lanes, vectors, _ = register_tile
    width = lanes * vectors
    tiles = max(1, images * -(-pixels // kind.side))
    panels = outputs // kind.side // width
    bound = most_tiles(
        lambda block: _native.strassen_scratch_bytes(FLOAT32, kind.levels, channels, block, block),
        max(STRASSEN_TILES[kind.levels], tiles), threads,
    )  # fmt: skip
    most = min(STRASSEN_TILES[kind.levels], bound)
    # the same number of equal blocks for every thread; few tiles stay together and share out the panels
    blocks = max(round(tiles / most / threads) * threads, -(-tiles // bound) if tiles > bound else 0)
    if blocks == 0:
        blocks = -(-tiles // most) if panels >= threads else min(threads, tiles)
    block = -(-tiles // blocks)
    blocks = -(-tiles // block)
    panels_per_task = panels if blocks % threads == 0 else max(1, -(-panels * blocks // threads))
    reduction = max(32, 4 * WEIGHT_SLICE_BYTES // (element * width))
    part = block
    if kind.products * channels // kind.side * width * element <= STRASSEN_PANEL_BYTES:
        part = min(block, STRASSEN_PART)
    return StrassenBlocking(block, part, reduction, panels_per_task)


def choose_algorithm(
    passes: Sequence[Pass],
    channels: int,
    outputs: int,
    groups: int,
    size: tuple[int, int],
    dtype: np.dtype[Any],
    algorithm: str,
    padding_mode: str,
    purpose: str,
    images: int = 1,
) -> tuple[str, str]:
    """(the algorithm, the reason) from the shapes of one image, the element type and the caller's wish.

    `purpose` is 'plan' (weights transformed once for many runs), 'network' (a plan of many, whose weights come from
    memory for every run), 'call' (which must earn the transform back in one image) or 'weight gradient', whose choice
    alone sees the number of `images`.
    """
    if algorithm != "auto":
        return algorithm, "asked for"
    if channels > LONG_SUM and purpose != "weight gradient":
        return "direct", f"more than {LONG_SUM} channels, whose sums the direct kernels alone make in blocks"
    p = passes[0]
    if strassen := choose_strassen(passes, channels, outputs, groups, size, dtype, purpose):
        return strassen
    if (
        purpose in ("plan", "network")
        and outputs >= LINE_OUTPUTS
        and size[1] >= LINE_SIZE
        and len(p.tap_x) == len(p.tap_y)
        and not why_not_line(passes, channels, outputs, groups, dtype, padding_mode)
    ):
        return "winograd_rows", (
            "7 columns at stride 2 in float32, few channels: 13 multiplications for 4 outputs of a row instead of 28"
        )
    if why := why_not_winograd(passes, channels, outputs, groups, dtype, padding_mode, purpose):
        if not why_not_winograd(passes, channels, outputs, groups, dtype, padding_mode, purpose, "winograd_phases"):
            return _phases_or_direct(p, channels, outputs, size)
        return "direct", f"Winograd does not apply: {why}"
    fewest = min(channels, outputs)
    spacing = tap_spacing(p)
    size = (-(-size[0] // spacing[0]), -(-size[1] // spacing[1]))
    least, least_channels = WINOGRAD_SIZE_PREPARED, WINOGRAD_CHANNELS
    if purpose == "call":
        least = WINOGRAD_SIZE_WIDE if fewest >= WINOGRAD_WIDE and spacing == (1, 1) else WINOGRAD_SIZE
        if spacing != (1, 1):  # every phase transforms the weights anew
            least_channels = WINOGRAD_CHANNELS_DILATED
    elif purpose == "weight gradient":
        least, least_channels = WINOGRAD_SIZE_GRADIENT, WINOGRAD_CHANNELS_GRADIENT
    macs = 9 * channels * outputs * prod(size)
    few = channels < least_channels or outputs < min(least_channels, WINOGRAD_OUTPUTS)
    if purpose == "weight gradient" or spacing != (1, 1):
        few = fewest < least_channels
    if purpose == "weight gradient":  # one sum over all images and phases
        planes = images * prod(spacing)
        few = few or planes * -(-size[0] // 4) * -(-size[1] // 4) < WINOGRAD_TILES_GRADIENT
        macs *= planes
    if few or min(size) < least or macs < WINOGRAD_MACS:
        if purpose != "weight gradient" and spacing == (1, 1) and _earns_small_tiles(fewest, min(size), macs, purpose):
            return "winograd_2x2", "3x3 at stride 1 in float32, a small map: 16 multiplications for 4 outputs, not 36"
        return "direct", (
            f"too small for Winograd, which pays from {least_channels} channels, {least} x {least} outputs and "
            f"{WINOGRAD_MACS:,} multiply-adds an image on for a {purpose}"
            f"{'' if spacing == (1, 1) else ', a phase of the dilation'}"
        )
    return "winograd", "3x3 at stride 1 in float32 with enough work: 36 multiplications for 16 outputs instead of 144"


def _phases_or_direct(p: Pass, channels: int, outputs: int, size: tuple[int, int]) -> tuple[str, str]:
    """The choice for a stride of 2: of 3 x 3 taps, or of 2 x 2 in every phase of an input gradient."""
    least_channels, least, least_macs = PHASES_PAY[len(p.tap_y)]
    own = p.output_size(size)
    macs = channels * outputs * prod(own) * len(p.tap_y) * len(p.tap_x)
    if min(channels, outputs) < least_channels or min(own) < least or macs < least_macs:
        return "direct", (
            f"too small for Winograd at stride 2, which pays from {least_channels} channels, {least} x {least} outputs "
            f"and {least_macs:,} multiply-adds an image on{'' if len(p.tap_y) == 3 else ', in every phase'}"
        )
    if len(p.tap_y) == 2:
        return "winograd_phases", "4x4 at stride 2 in float32: 9 multiplications for 4 outputs of a phase instead of 16"
    if min(own) >= PHASES_SIZE_LARGE:
        return "winograd_phases_4x4", "3x3 at stride 2 in float32: 81 multiplications for 16 outputs instead of 144"
    return "winograd_phases", "3x3 at stride 2 in float32: 25 multiplications for 4 outputs instead of 36"


def _earns_small_tiles(fewest: int, size: int, macs: int, purpose: str) -> bool:
    """Whether a map too small for tiles of 4 x 4 outputs, `size` a side, earns the transforms of 2 x 2."""
    if purpose in ("plan", "network"):
        least = WINOGRAD_CHANNELS_SMALL_PREPARED
    else:
        least = WINOGRAD_CHANNELS_SMALL if size >= WINOGRAD_SIZE_PREPARED else WINOGRAD_CHANNELS_SMALLEST
    return fewest >= least and size >= WINOGRAD_SIZE_SMALL and macs >= WINOGRAD_MACS_SMALL


class WinogradBlocking(NamedTuple):
    """Loop sizes of the Winograd driver."""

    few: bool  # weights are transformed in registers, whether a plan holds their transform or not
    tiles: int  # of a block
    reduction: int
    slice: int  # channels whose weights are transformed at a time, where no plan holds them
    panels_per_task: int


def few_winograd_tiles(
    kind: Winograd, tiles: int, channels: int, outputs: int, register_tile: tuple[int, int, int, int], prepared: bool
) -> bool:
    """Whether so few tiles that transforming the weights in registers costs less than reading their transform.

    The bits are the same either way.
    """
    element, _, vectors, _ = register_tile
    held = prepared and kind.weights**2 * channels * outputs * element <= WINOGRAD_HELD_BYTES
    return kind == WINOGRAD["winograd"] and vectors == 4 and tiles <= WINOGRAD_FEW_TILES and not held


def winograd_tiles(kind: Winograd, shape: tuple[int, int, int]) -> int:
    """Tiles of an output of `shape` (batch, height, width)."""
    return shape[0] * -(-shape[1] // kind.tile) * -(-shape[2] // kind.tile)


def panel_width(compute: int, outputs: int) -> int:
    """Output channels of the widest panel."""
    _, lanes, vectors, _ = _native.tile_shape(compute)
    return min(lanes * vectors, outputs)


@lru_cache(maxsize=256)
def winograd_blocking(
    kind: Winograd,
    channels: int,
    outputs: int,
    shape: tuple[int, int, int],
    register_tile: tuple[int, int, int, int],
    threads: int,
    transformed: bool,
) -> WinogradBlocking:
    """Loop sizes for an output of `shape` (batch, height, width).

    With `transformed` weights at hand, a block's transformed input stays in the second-level cache. Without, its sums
    and a slice of transformed weights do, and a block has as many tiles as that allows, to use the slice often.
    """
    element, lanes, vectors, rows = register_tile
    elements, weights = kind.elements**2, kind.weights**2
    tiles = max(1, winograd_tiles(kind, shape))  # an empty batch has loop sizes too
    few = few_winograd_tiles(kind, tiles, channels, outputs, register_tile, transformed)
    width = lanes * vectors
    leading = -(-channels // lanes) * lanes + lanes
    panels = -(-outputs // width)
    budget = WORKSPACE_BYTES // threads
    part = max(1, min(channels, min(WINOGRAD_SLICE_BYTES, budget // 3) // (weights * element * width)))
    if few:
        most, part = tiles, _native.WINOGRAD_CHANNELS
    elif transformed:
        most = max(4 * rows, min(16 * rows, WINOGRAD_BYTES // (elements * element * leading)))
    else:
        most = max(rows, WINOGRAD_SUMS_BYTES // (elements * element * width))
    bound = most_tiles(
        lambda block: _native.winograd_scratch_bytes(
            FLOAT32, kind.number, channels, block, block, part, few, transformed
        ),
        max(most, tiles), threads,
    )  # fmt: skip
    most = min(most, bound)
    # the same number of equal blocks for every thread, near that size; few tiles stay together and share out the panels
    blocks = max(round(tiles / most / threads) * threads, -(-tiles // bound) if tiles > bound else 0)
    if blocks == 0:
        together = panels >= 2 * threads or (panels % threads == 0 and tiles <= 4 * rows)
        blocks = -(-tiles // most) if together else min(threads, -(-tiles // rows))
    block = -(-tiles // blocks)
    # every task transforms its tiles anew: no more of them than threads
    panels_per_task = panels if blocks % threads == 0 else max(1, -(-panels * blocks // threads))
    return WinogradBlocking(few, block, max(32, WEIGHT_SLICE_BYTES // (element * width)), part, panels_per_task)


class WeightGradientBlocking(NamedTuple):
    """Loop sizes of the weight gradient; `parts` cuts its sum, by shape alone."""

    taps: tuple[int, ...]
    channels: int
    panels: int
    tile: tuple[int, ...]
    chunk_rows: int
    parts: int


@lru_cache(maxsize=256)
def weight_gradient_blocking(g: Geometry, register_tile: tuple[int, int, int, int]) -> WeightGradientBlocking:
    """Loop sizes from the shapes and the register tile; the batch counts only for the number of parts."""
    element, lanes, vectors, rows = register_tile
    width = lanes * vectors
    channels, outputs = max(1, g.in_channels // g.groups), max(1, g.out_channels // g.groups)
    panels = -(-outputs // width)
    panel_bytes = min(width, -(-outputs // lanes) * lanes) * element
    # a chunk of one panel stays in the first level; blocks of a long sum are whole tiles, of few enough pixels
    pixels = max(rows, min(WEIGHT_SLICE_BYTES // panel_bytes, LONG_SUM // 2))
    tile_x = _split(g.output_size[1], min(pixels, 128) * 5 // 4)
    chunk_rows = max(1, pixels // tile_x)

    def span(tile: int, taps: int, axis: int) -> int:
        step = 1 if taps == 1 else g.stride[axis]
        return (tile - 1) * step + (taps - 1) * g.dilation[axis] + 1

    def region(tile_y: int, taps: tuple[int, int], count: int) -> int:
        return span(tile_y, taps[0], 0) * span(tile_x, taps[1], 1) * count * element

    taps = g.kernel_size
    for smaller in ((1, g.kernel_size[1]), (1, 1)):
        if prod(taps) * rows * panel_bytes > SUMS_BYTES or region(1, taps, rows) > GATHER_ABOVE_BYTES:
            taps = smaller
    count = min(channels, max(rows, SUMS_BYTES // (prod(taps) * panel_bytes) // rows * rows), 256)
    while count > rows and region(1, taps, count) > REGION_BYTES:
        count = max(rows, count // 2)
    count = -(-channels // -(-channels // count))
    panel_block = max(1, min(panels, SUMS_BYTES // (prod(taps) * count * panel_bytes)))
    while panel_block > 1 and -(-channels // count) * -(-panels // panel_block) * g.groups < 8:
        panel_block -= 1  # blocks to share out, rather than partial sums
    tile_y = min(max(1, g.output_size[0]), chunk_rows)
    while (
        tile_y + chunk_rows <= g.output_size[0]
        and region(tile_y + chunk_rows, taps, count) <= REGION_BYTES
        and (tile_y + chunk_rows) * tile_x * panel_bytes <= REGION_BYTES // 2
        and (tile_y + chunk_rows) * tile_x <= LONG_SUM // 2
    ):
        tile_y += chunk_rows
    tile_y = _split(g.output_size[0], tile_y)
    blocks = (
        g.groups * -(-g.kernel_size[0] // taps[0]) * -(-g.kernel_size[1] // taps[1])
        * -(-channels // count) * -(-panels // panel_block)
    )  # fmt: skip
    tiles = g.batch * -(-g.output_size[0] // tile_y) * -(-g.output_size[1] // tile_x)
    block_bytes = prod(taps) * count * panel_block * width * element
    parts = max(1, min(tiles, -(-32 // blocks), PARTIAL_SUMS_BYTES // (blocks * block_bytes)))
    return WeightGradientBlocking(taps, count, panel_block, (tile_y, tile_x), chunk_rows, parts)


class WinogradGradientBlocking(NamedTuple):
    """Loop sizes of the Winograd weight gradient; `parts` cuts its sum, by shape alone."""

    channels: int
    tiles: int  # transformed together
    parts: int


@lru_cache(maxsize=256)
def winograd_gradient_blocking(
    kind: Winograd, g: Geometry, register_tile: tuple[int, int, int, int]
) -> WinogradGradientBlocking:
    """Sums of 36 x 64 channels x one panel (590 KB in AVX-512) and 24 transformed tiles share the second level."""
    element, lanes, vectors, _ = register_tile
    width = lanes * vectors
    channels = min(_native.WINOGRAD_CHANNELS, g.in_channels)
    blocks = -(-g.in_channels // channels) * -(-g.out_channels // width)
    tiles = g.batch
    for size, dilation in zip(g.output_size, g.dilation, strict=True):  # of every phase
        tiles *= min(size, dilation) * -(-size // (kind.tile * dilation))
    block_bytes = kind.elements**2 * channels * width * element
    parts = min(tiles // 48, -(-16 // blocks), PARTIAL_SUMS_BYTES // (blocks * block_bytes))
    return WinogradGradientBlocking(channels, 24, max(1, parts))
