"""Where the direct driver cuts its outputs into tiles, so that few taps meet padding in most of a tile's pixels."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise, product
from math import prod

from ..passes import AXES, Edges, Offsets, Pass, Triple, even_edges, met_between, met_taps, walked_taps
from ..record import NamedTuple
from .method import Sums, split

EARNED = 0.97  # of the cycles: what tiles of unequal sizes must save
LEAST_ROWS = 2  # of a register tile, for as many multiply-adds as loads


class Along(NamedTuple):
    """Tiles along an axis."""

    taps: Offsets
    edges: Edges
    walked: int  # outputs times the taps that are walked for them
    longest: float  # the largest share of these that one tile has
    inputs: int  # under all tiles, those that several tiles share as often
    most: int  # under one of them, padding between them counted


class Cut(NamedTuple):
    """Tiles of all outputs, images that share one, panels of a task, and about how many cycles an image then takes."""

    edges: tuple[Edges, Edges, Edges]
    images: int
    panels: int
    cycles: float


def along(taps: Offsets, stride: int, extent: int, edges: Edges) -> Along:
    """What tiles with these edges cost; of inputs a single tap picks those that it meets."""
    order, inputs, longest, most = sorted(taps), 0, 0, 0
    for first, end in pairwise(edges):
        low, high = met_taps(order, stride, extent, first, end)
        if low < high:
            longest = max(longest, (end - first) * (high - low))
            reach = order[high - 1] - order[low]
            under = end - first if len(order) == 1 else (end - 1 - first) * stride + reach + 1
            inputs, most = inputs + min(extent, under), max(most, under)
    walked = walked_taps(taps, stride, extent, edges)
    return Along(taps, edges, walked, longest / max(1, walked), inputs, most)


@lru_cache(maxsize=256)
def cuts(taps: Offsets, stride: int, extent: int, outputs: int, most: int) -> list[Along]:
    """From tiles in which every output meets the same taps to a single one, but for tiles above `most` outputs: of two
    neighbours those become one whose taps differ least."""
    order = sorted(taps)

    def walk(first: int, end: int) -> int:
        low, high = met_taps(order, stride, extent, first, end)
        return (end - first) * max(0, high - low)

    changes = {at for tap in taps for at in met_between(tap, stride, extent) if 0 < at < outputs}
    edges = [0, *sorted(changes), outputs]
    found = []
    while True:
        pieces = (range(a, b, split(b - a, most)) for a, b in pairwise(edges))
        found.append(along(taps, stride, extent, (*(i for piece in pieces for i in piece), outputs)))
        if len(edges) <= 2:
            return found
        added = [walk(a, c) - walk(a, b) - walk(b, c) for a, b, c in zip(edges, edges[1:], edges[2:], strict=False)]
        del edges[1 + added.index(min(added))]


def cost(s: Sums, ways: tuple[Along, Along, Along], images: int, threads: int, even: bool = False) -> Cut:
    """About how many cycles an image takes: register tiles are as equal as can be, and one of few rows reads a weight
    for each of them. Of tiles that are not `even` the longest keeps its thread while others share the rest; a task has
    all panels or one. Weights packed on the way are packed for every tile, or once a panel by each thread."""
    m, (z, y, x) = s.machine, ways
    from .direct_blocking import images_of_a_tile, tuned  # which is made of this module

    costs, vectors = tuned(m), -(-s.outputs // m.lanes)
    panels = -(-vectors // m.vectors)
    pixels, tiles = prod(way.edges[-1] for way in ways), prod(len(way.edges) - 1 for way in ways)
    together = images_of_a_tile(-(-pixels // tiles), images, m.rows) if z.edges[-1] == 1 else 1
    tiles_of_an_image = tiles / together
    products = z.walked * y.walked * x.walked * s.channels * vectors
    work = products * max(1.0, tiles_of_an_image * LEAST_ROWS / pixels)
    work += panels * (pixels / m.rows + tiles_of_an_image / 2) * costs.call
    region = costs.pack * z.inputs * y.inputs * x.inputs * s.channels / m.lanes + tiles_of_an_image * costs.task
    share = 1 / threads if even else max(1 / threads, z.longest * y.longest * x.longest / max(1, images * s.groups))
    weights = 0.0 if s.held else costs.weight * s.channels * prod(len(way.taps) for way in ways) * vectors
    waiting = 0.0 if even else (1 - 1 / threads) / 2 / (tiles_of_an_image * max(1, images) * s.groups)  # for the last
    whole = (work + region + tiles_of_an_image * weights) * (share + waiting)
    apart = (work + panels * region) * max(1 / threads, share / panels + waiting / panels)
    apart += min(threads, tiles) * weights / threads
    count, cycles = (panels, whole) if whole <= apart else (1, apart)
    return Cut((z.edges, y.edges, x.edges), together, count, cycles)


def best_cut(
    s: Sums, q: Pass, size: Triple, tile: Triple, largest: tuple[int, int], images: int, threads: int,
    room: float = math.inf,
) -> Cut:  # fmt: skip
    """What takes least: equal tiles of such a size, or unequal ones of a plane, up to `largest` rows and columns, with
    `room` for so many pixels under one."""

    def ways(axis: int) -> list[Along]:
        if axis == 0:
            return [along(q.taps[0], q.stride[0], s.input_size[0], even_edges(size[0], 1))]
        return cuts(q.taps[axis], q.stride[axis], s.input_size[axis], size[axis], largest[axis - 1])

    z, y, x = (along(q.taps[a], q.stride[a], s.input_size[a], even_edges(size[a], tile[a])) for a in AXES)
    best = cost(s, (z, y, x), images, threads, True)
    earned = EARNED * best.cycles
    for z, y, x in product(ways(0), ways(1), ways(2)):
        if z.most * y.most * x.most > room:
            continue
        found = cost(s, (z, y, x), images, threads)
        if found.cycles < min(earned, best.cycles):
            best = found
    return best
