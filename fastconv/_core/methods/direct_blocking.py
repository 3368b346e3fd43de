"""Loop sizes of the direct driver, and about how long it takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from math import prod

from ..passes import AXES, Edges, Pass, Triple, even, span, triple
from ..problem import Machine
from ..record import NamedTuple
from .direct_tiles import best_cut
from .method import LONG_SUM, Sums, split

# Where the register tiles read their pixels (drivers/direct.pxi).
IN_PLACE, REGION, GATHER = 0, 1, 2
SOURCES = ("in place", "packed region", "gathered")
PLANES = "planes as they lie, a lane a pixel"
FEW = "in place, a lane a pixel"
FEW_TAPS = "packed planes, a lane a pixel"
MOST_PIXELS = 768  # outputs of a tile: their sums (one panel) take at most 192 KB
GATHER_ABOVE_BYTES = 4 << 20  # a window larger than this is never packed whole
UNEQUAL_BYTES = 8 << 20  # packed at most under a tile of those that are cut where fewer taps meet padding
FAR_APART = 4  # times as many pixels are under a tile as under one output, or fewer
# Times as long as by themselves a thread's tasks may take where each has pixels of its own, and not outputs of all
# pixels: those are read by every thread, and what several have read costs each of them more to write again. In
# ResNet-50 it is worth 1 to 3 %, in layers by themselves, whose input nobody writes, it costs 0 to 2.5 % (Zen 4).
READ_BY_ALL = 1.05
WEIGHT_SLICE, REGION_SHARE = 32, 48  # of the second-level cache, in 128ths: weights under a register tile, packed input


class Tuned:
    """The method's numbers (`tuning`): costs in cycles, to share tasks out, and where something else pays."""

    call: int = 30  # of the micro-kernel
    pack: int = 4  # a vector of the region
    weight: int = 14  # a vector of weights, which most layouts transpose
    task: int = 1000  # all that a task does once
    merging_gain: float = 0.8  # vector operations of merged phases, beside those of phases apart, at which they merge
    merging: int = 1 << 19  # cycles that a single call, which makes the merged weights, must save
    exchange_gain: float = 0.8  # of the cycles, both estimated, at which the kernel becomes the image
    few_pixels: int = 8  # of an image up to which the weight gradient is a convolution of the input by grad_output


def tuned(m: Machine) -> Tuned:
    """The numbers of a machine."""
    return m.tuning.of("direct", Tuned)


class Blocking(NamedTuple):
    """Loop sizes of one pass."""

    source: int
    images: int  # of a tile
    tile: Triple
    reduction: int
    panels_per_task: int
    streams: bool = False  # packs the weights of a single run block by block
    edges: tuple[Edges, Edges, Edges] | None = None  # of tiles of unequal sizes, `tile` the largest


def most_pixels(m: Machine) -> int:
    """Outputs of a tile: their sums stay in cache, and in the workspace where the caller caps it."""
    if not m.capped:
        return MOST_PIXELS
    return min(MOST_PIXELS, max(m.rows, m.share // 4 // (m.width * m.element)))


@lru_cache(maxsize=512)
def _reaches(q: Pass) -> list[tuple[int, int, int]]:
    """Along each axis: how far the taps reach, what lies between outputs in the region, and in the input.

    A single tap packs every stride-th plane, row or column alone.
    """
    return [(span(q.taps[a]), 1 if q.counts[a] == 1 else q.stride[a], q.stride[a]) for a in AXES]


def region_pixels(q: Pass, tile: Triple, input_size: Triple | None = None) -> int:
    """Pixels packed under a tile; taps that meet an input of `input_size` lie no farther apart than it and the tile
    reach."""
    pixels = 1
    for axis, (reach, step, stride) in enumerate(_reaches(q)):
        beyond = tile[axis] - 1
        if input_size and input_size[axis] + beyond * stride < reach:
            reach = input_size[axis] + beyond * stride
        pixels *= beyond * step + reach
    return pixels


def _task_cycles(m: Machine, pixels: int, vectors: int, steps: int, region: int, packed: float) -> float:
    """About how long a task takes: its register tiles, so many `vectors` of outputs across, the region that it packs,
    and the weights, of which it packs the share `packed`."""
    c, tiles, panels = tuned(m), -(-pixels // m.rows), -(-vectors // m.vectors)
    return (
        tiles * (steps * m.rows * vectors + panels * c.call) + packed * c.weight * steps * vectors
        + c.pack * region / m.lanes
        + c.task
    )


def _shared_out(
    most_rows: int, columns: int, panels: int, size: tuple[int, int], groups: int, images: int, threads: int,
    cycles: Callable[[tuple[int, int]], Callable[[int, int], float]],
) -> tuple[int, int]:  # fmt: skip
    """Rows of a tile, up to `most_rows`, and panels of a task for which the threads end soonest and together.

    `cycles(tile)(panels, tasks)` is a task's time; so many tasks in a row use the same panels. The last tile of the
    rows may be shorter; a thread that runs out of long tasks takes the short ones.
    """
    best = (most_rows, panels)
    soonest = math.inf
    across = max(1, images) * groups * -(-max(1, size[1]) // columns)
    chunk_counts = sorted({-(-panels // -(-panels // n)) for n in range(1, min(panels, 4 * threads) + 1)})
    for parts in range(-(-max(1, size[0]) // most_rows), max(1, size[0]) + 1):
        tile_y = split(size[0], -(-max(1, size[0]) // parts))
        full, rest = divmod(max(1, size[0]), tile_y)
        if parts > full + (rest > 0):
            continue
        tasks = across // groups * (full + (rest > 0))
        whole, last = cycles((tile_y, columns)), cycles((rest, columns)) if rest else None
        for chunks in chunk_counts:
            count = -(-panels // chunks)
            long, short = whole(count, tasks), last(count, tasks) if last else 0.0
            rounds, left = divmod(full * across * chunks, threads)
            end = rounds * long
            waiting = rest and across * chunks * short
            if left:
                waiting = max(0.0, waiting - (threads - left) * long)
                end += long
            if waiting:
                end += math.ceil(waiting / short / threads) * short
            if chunks > 1 and full * across % threads:
                end *= READ_BY_ALL
            if end < soonest * 0.995:  # larger tiles come first: a smaller one must earn its place
                soonest, best = end, (tile_y, count)
        if full * across >= 16 * threads and parts > 1:
            break
    return best


def walk_cycles(s: Sums, images: int) -> float:
    """About how many cycles passes that meet much padding take, their weights packed on the way."""
    total = 0.0
    for q in s.passes:
        own = q.output_size(s.size)
        most = most_pixels(s.machine)
        rows, columns = split(own[1], -(-most // own[2])), split(own[2], most)
        total += images * best_cut(s, q, own, (1, rows, columns), (rows, columns), images, 1).cycles
        packed = prod(q.counts) * s.channels * -(-s.outputs // s.machine.lanes)
        total += tuned(s.machine).weight * packed
    return total


def even_reduction(steps: int, most: int, tile_k: int) -> int:
    """Steps of a block of the reduction, about `most`: blocks as equal as can be. None has so few that sums would be
    read and written again for little."""
    blocks = max(1, round(steps / most))
    return -(-steps // (blocks * tile_k)) * tile_k if steps else most


def reduction_of(s: Sums, q: Pass) -> int:
    """Steps of a block of the reduction: its weights stay in the second-level cache while a tile's pixels pass."""
    m, (_, weight, tile_k) = s.machine, s.operands
    most = max(32, m.tuning.share(WEIGHT_SLICE) // (m.width * weight))
    steps = prod(q.counts) * -(-s.channels // tile_k) * tile_k
    if m.capped or steps >= LONG_SUM:  # whose blocks have lengths of their own
        return most
    return even_reduction(steps, most, tile_k)


def images_of_a_tile(pixels: int, images: int, rows: int) -> int:
    """Images that share a tile of so few pixels that they would not fill the register tiles, `rows` each."""
    return split(images, min(images, 8 * rows // pixels)) if images > 1 and pixels <= 4 * rows else 1


def _largest_tile(s: Sums, q: Pass, size: Triple, in_place: bool, region_bytes: Callable[[Triple], int]) -> Blocking:
    """The largest tile whose data stays in cache, whole rows before planes, and where it reads its pixels."""
    m, budget, most_outputs = s.machine, s.machine.room(REGION_SHARE, 3), most_pixels(s.machine)
    reduction = reduction_of(s, q)
    tile_z, tile_x = 1, split(size[2], most_outputs)
    if in_place:
        most = max(m.rows, min(most_outputs, budget // max(1, s.channels * s.operands[0])))
        tile_x = split(size[2], most)
        tile_y = split(size[1], max(1, most // tile_x))
        if (tile_y, tile_x) == size[1:]:
            tile_z = split(size[0], most // max(1, tile_y * tile_x))
        return Blocking(IN_PLACE, 1, (tile_z, tile_y, tile_x), reduction, 1)

    def fits(tile: Triple) -> bool:
        return prod(tile) <= most_outputs and region_bytes(tile) <= budget

    while tile_x > 2 * m.rows and region_bytes((1, 1, tile_x)) > budget:
        tile_x = split(size[2], tile_x // 2)
    tile_y = 1
    while tile_y < size[1] and fits((1, tile_y + 1, tile_x)):
        tile_y += 1
    if region_bytes((1, 1, tile_x)) > (budget if m.capped else GATHER_ABOVE_BYTES):
        return Blocking(GATHER, 1, (1, 1, split(size[2], 4 * m.rows)), 256, 1)
    tile_y = split(size[1], tile_y)
    while (tile_y, tile_x) == size[1:] and tile_z < size[0] and fits((tile_z + 1, tile_y, tile_x)):
        tile_z += 1
    return Blocking(REGION, 1, (split(size[0], tile_z), tile_y, tile_x), reduction, 1)


def blocking(s: Sums, q: Pass, threads: int, in_place: bool, copies: bool = False) -> Blocking:
    """Loop sizes of a pass; one that is read in place may be copied under each tile (`copies`).

    The number of images and whether a plan holds the weights decide how tasks are cut, and so nothing in the results.
    """
    m, size, images = s.machine, q.output_size(s.size), s.images
    element, _, tile_k = s.operands
    leading = -(-s.channels // tile_k) * tile_k
    leading += m.lanes if s.channels >= 64 and leading * element % 1024 == 0 else 0
    panels = -(-s.outputs // m.width) if s.outputs else 1

    def region_bytes(tile: Triple) -> int:
        return region_pixels(q, tile, None if s.mode else s.input_size) * leading * element

    source, together, tile, reduction, *_ = _largest_tile(s, q, size, in_place, region_bytes)
    if source == REGION and not s.mode and 0 not in (*size, s.channels, s.outputs):
        largest, room = _most_unequal(s, q, tile, leading * element)
        cut = best_cut(s, q, size, tile, largest, images, threads, room)
        if cut.edges != even(size, tile):
            tile = triple([max(end - first for first, end in pairwise(edges)) for edges in cut.edges])
            return Blocking(REGION, 1 if m.capped else cut.images, tile, reduction, cut.panels, False, cut.edges)
    if source != GATHER and tile == size:
        together = images_of_a_tile(prod(tile), images, m.rows)
        # beyond the second level too where fewer would not fill the register tiles: all weights pass for each tile
        whole, most = region_bytes(tile), m.room(REGION_SHARE, 3)
        together = 1 if m.capped else together
        while source == REGION and together * prod(size) > 2 * m.rows and together * whole > most:
            together = -(-together // 2)
    panels_per_task, (tile_z, tile_y, tile_x) = panels, tile
    if threads > 1:
        line = size[1] == 1  # whose columns are shared out in the place of rows
        vectors, products = -(-s.outputs // m.lanes), -(-prod(q.counts) * s.channels // tile_k)  # of a pixel

        def cycles(tile: tuple[int, int]) -> Callable[[int, int], float]:
            pixels = together * tile_z * tile[0] * tile[1]
            whole = not in_place or copies
            region = together * region_bytes((tile_z, *_turned(tile, line))) // element if whole else 0

            def of(count: int, tasks: int) -> float:
                # a thread keeps the panel that it has packed
                packed = 0.0 if s.held else min(1.0, threads / tasks) if count == 1 else 1.0
                return _task_cycles(m, pixels, min(count * m.vectors, vectors), products, region, packed)

            return of

        shared, across = _turned((tile_y, tile_x), line)
        shared, panels_per_task = _shared_out(
            shared, across, panels, _turned(size[1:], line), s.groups, -(-size[0] // tile_z) * -(-images // together),
            threads, cycles,
        )  # fmt: skip
        tile_y, tile_x = _turned((shared, across), line)
    return Blocking(source, together, (tile_z, tile_y, tile_x), reduction, panels_per_task)


def _turned(pair: tuple[int, int], line: bool) -> tuple[int, int]:
    """Rows and columns, of a `line` columns and rows."""
    return pair[::-1] if line else pair


def _most_unequal(s: Sums, q: Pass, tile: Triple, pixel_bytes: int) -> tuple[tuple[int, int], float]:
    """(Rows and columns of unequal tiles, pixels under one): as of equal ones, or more where taps lie so far apart that
    the region hardly shrinks with its tile. All of it is then read from memory for every panel."""
    own = region_pixels(q, tile, s.input_size)
    if s.machine.capped or FAR_APART * region_pixels(q, (1, 1, 1), s.input_size) < own:
        return (tile[1], tile[2]), math.inf
    side = int(most_pixels(s.machine) ** 0.5)
    return (max(tile[1], side), max(tile[2], side)), max(own, UNEQUAL_BYTES // pixel_bytes)
