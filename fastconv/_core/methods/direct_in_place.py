"""Where the direct driver cuts its outputs so that all of a tile meet the same taps: no padding lies under it, and the
register tiles read their pixels as they lie. A copy would be read again for every tap and panel as the input is."""

from __future__ import annotations

from collections import deque
from itertools import pairwise, product
from math import prod

from ..passes import AXES, Edges, Pass, met_taps, triple
from ..record import NamedTuple
from .direct_blocking import IN_PLACE, Blocking, images_of_a_tile, most_pixels, reduction_of, tuned
from .direct_tiles import LEAST_ROWS, same_taps
from .method import Sums, split

SHORT_RUN = 2  # vectors' worth of steps: with fewer in a segment, MANY_PIXELS register tiles a tile are asked for
MANY_PIXELS = 2
FEWEST = 2  # channels: of one, long kernels over sound took three times as long in place
PACKED_AGAIN = 64  # times as long as packing a panel, which several threads do, its sums must take: 2 %
PARTS = 8  # at most, of the rows of a tile, else its columns, and of the panels, to share them out
MANY = 32  # tasks of a thread from which on it hardly matters how the last ones are shared out
EARNED = 0.995  # of the time: larger tiles come first, and a smaller one must earn its place


class _Part(NamedTuple):
    """Outputs of a tile along an axis, or of all of it, and the taps that it walks."""

    outputs: int
    taps: int


def in_place_blocking(s: Sums, q: Pass, threads: int) -> Blocking | None:
    """Loop sizes of a pass of several taps whose input lies channels last: tiles, and panels of a task, for which the
    threads end soonest. None where tiles would not fill a register tile on average, which reads all weights for its few
    pixels; where a copy of the input costs little: of few channels, unless a stride leaves few outputs to it; where
    phases are merged, whose outputs are stored row by row: the tiles at the edges have short ones; and where the
    weights of so few pixels are packed on the way that threads should not share a panel."""
    m, size = s.machine, q.output_size(s.size)
    adjacent = s.groups == 1 and all(b == a + 1 for a, b in pairwise(q.taps[2]))
    run = s.channels * (q.counts[2] if adjacent else 1)  # of inputs that lie side by side
    if s.mode or 0 in (*size, s.outputs) or prod(q.merge) > 1:
        return None
    if s.channels < m.lanes and (s.channels < FEWEST or not adjacent or prod(q.stride) == 1):
        return None
    least_pixels = m.rows * (MANY_PIXELS if run < SHORT_RUN * m.lanes else 1)
    if not s.held and prod(size) * max(1, s.images) < PACKED_AGAIN * tuned(m).weight:
        return None
    alike = [same_taps(q.taps[a], q.stride[a], s.input_size[a], size[a]) for a in AXES]
    most, panels = most_pixels(m), -(-s.outputs // m.width)
    columns = _split(alike[2], most)
    longest = max(end - first for first, end in pairwise(columns))
    rows = min(size[1], max(1, most // longest))
    counts = sorted({-(-panels // n) for n in range(1, min(panels, PARTS) + 1)} | {1}, reverse=True)
    best, soonest, shared = None, 0.0, 0.0
    for parts, count in product(range(1, 1 + PARTS), counts) if threads > 1 else ((1, panels),):
        if parts > rows:  # of a line
            columns = _split(alike[2], -(-longest // -(-parts // rows)))
        edges = (_split(alike[0], 1), _split(alike[1], -(-rows // parts)), columns)
        if prod(len(along) - 1 for along in edges) * least_pixels > prod(size):
            break
        tiles = _tiles(s, q, edges)
        images = 1 if m.capped else images_of_a_tile(-(-prod(size) // len(tiles)), s.images, m.rows)
        cycles, shared = _cycles(s, q, tiles, images, count, threads)
        if best is None or cycles < EARNED * soonest:
            best, soonest = (edges, images, count), cycles
        if EARNED * soonest <= shared:
            break
    if best is None:
        return None
    edges, images, count = best
    tile = triple([max(end - first for first, end in pairwise(along)) for along in edges])
    return Blocking(IN_PLACE, images, tile, reduction_of(s, q), count, False, edges)


def _split(edges: Edges, most: int) -> Edges:
    """With tiles of up to so many outputs between these edges."""
    return (*(at for first, end in pairwise(edges) for at in range(first, end, split(end - first, most))), edges[-1])


def _tiles(s: Sums, q: Pass, edges: tuple[Edges, Edges, Edges]) -> list[_Part]:
    """All tiles of an image."""

    def part(axis: int, first: int, end: int) -> _Part:
        low, high = met_taps(sorted(q.taps[axis]), q.stride[axis], s.input_size[axis], first, end)
        return _Part(end - first, max(0, high - low))

    parts = [[part(a, first, end) for first, end in pairwise(edges[a])] for a in AXES]
    return [_Part(z.outputs * y.outputs * x.outputs, z.taps * y.taps * x.taps) for z, y, x in product(*parts)]


def _cycles(
    s: Sums, q: Pass, tiles: list[_Part], images: int, count: int, threads: int
) -> tuple[float, float]:
    """About how long all images take, so many of which share a tile, with so many panels a task, and how long if the
    threads ended together."""
    c, m, vectors = tuned(s.machine), s.machine, -(-s.outputs // s.machine.lanes)
    panels = -(-vectors // m.vectors)
    tasks = []
    for tile in tiles:
        pixels = images * tile.outputs
        register_tiles = -(-pixels // m.rows)
        steps = tile.taps * s.channels * max(pixels, LEAST_ROWS * register_tiles)
        tasks.append(steps * vectors / panels + register_tiles * c.call)
    tasks.sort(reverse=True)
    times = s.groups * -(-max(1, s.images) // images)
    packed = 0.0  # each thread packs a panel that it keeps, or all of them for every tile
    if not s.held:
        packed = c.weight * prod(q.counts) * s.channels * vectors * s.groups
        packed *= min(threads, len(tiles)) if count == 1 else times / s.groups * len(tiles)
    chunks = [min(count, panels - first) for first in range(0, panels, count)]
    end = shared = sum(tasks) * times * panels / threads
    if threads > 1 and len(tasks) * times * len(chunks) <= MANY * threads:
        end = _end([task * chunk + c.task for chunk in chunks for task in tasks * times], threads)
    return end + packed / threads, shared


def _end(tasks: list[float], threads: int) -> float:
    """When the last thread is done: each takes every so many-th task, then from the ends of the others' shares."""
    shares = [deque(tasks[i::threads]) for i in range(threads)]
    ends = [0.0] * threads
    while any(shares):
        thread = ends.index(min(ends))
        ends[thread] += shares[thread].popleft() if shares[thread] else max(shares, key=len).pop()
    return max(ends)
