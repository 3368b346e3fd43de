"""Where the direct driver cuts its outputs into tiles, so that few taps meet padding in most of a tile's pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, pairwise, product

from ..passes import AXES, Edges, Offsets, Pass, Triple, even_edges, met_between, met_taps
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


class _Tiles(NamedTuple):
    """What some tiles that follow each other cost; see `Along`."""

    edges: Edges
    walked: int
    longest: int  # of one of them
    inputs: int
    most: int


def _tiles(order: Sequence[int], stride: int, extent: int, edges: Edges) -> _Tiles:
    """Of tiles with these edges; of inputs a single tap picks those that it meets. `order` are the taps by rising
    offset."""
    walked = longest = inputs = most = 0
    for first, end in pairwise(edges):
        low, high = met_taps(order, stride, extent, first, end)
        if low < high:
            steps = (end - first) * (high - low)
            walked += steps
            longest = max(longest, steps)
            reach = order[high - 1] - order[low]
            under = end - first if len(order) == 1 else (end - 1 - first) * stride + reach + 1
            inputs, most = inputs + min(extent, under), max(most, under)
    return _Tiles(edges, walked, longest, inputs, most)


def _joined(taps: Offsets, parts: Sequence[_Tiles]) -> Along:
    """Parts that follow each other as all tiles of an axis."""
    edges, walked, longest, inputs, most = zip(*parts, strict=True)
    total = sum(walked)
    ends = chain.from_iterable([part[1:] for part in edges])
    return Along(taps, (0, *ends), total, max(longest) / max(1, total), sum(inputs), max(most))


@lru_cache(maxsize=512)
def along(taps: Offsets, stride: int, extent: int, outputs: int, tile: int) -> Along:
    """What tiles of a size cost."""
    return _joined(taps, [_tiles(sorted(taps), stride, extent, even_edges(outputs, tile))])


def same_taps(taps: Offsets, stride: int, extent: int, outputs: int) -> Edges:
    """Between which edges all outputs meet the same taps."""
    changes = {at for tap in taps for at in met_between(tap, stride, extent) if 0 < at < outputs}
    return (0, *sorted(changes), outputs)


@lru_cache(maxsize=256)
def cuts(taps: Offsets, stride: int, extent: int, outputs: int, most: int) -> list[Along]:
    """From tiles in which every output meets the same taps to a single one, but for tiles above `most` outputs: of two
    neighbours those become one whose taps differ least."""
    order = sorted(taps)

    def walk(first: int, end: int) -> int:
        low, high = met_taps(order, stride, extent, first, end)
        return (end - first) * max(0, high - low)

    def part(first: int, end: int) -> _Tiles:
        return _tiles(order, stride, extent, (*range(first, end, split(end - first, most)), end))

    def added(at: int) -> int:
        """What is walked more without the edge of this number."""
        before, edge, behind = edges[at - 1 : at + 2]
        return walk(before, behind) - walk(before, edge) - walk(edge, behind)

    edges = list(same_taps(taps, stride, extent, outputs))
    parts = [part(first, end) for first, end in pairwise(edges)]
    more = [added(at) for at in range(1, len(edges) - 1)]
    found = [_joined(taps, parts)]
    while more:
        at = more.index(min(more))
        del edges[at + 1], more[at]
        parts[at : at + 2] = [part(edges[at], edges[at + 1])]
        for neighbour in (at - 1, at):
            if 0 <= neighbour < len(more):
                more[neighbour] = added(neighbour + 1)
        found.append(_joined(taps, parts))
    return found


def cost(s: Sums, ways: tuple[Along, Along, Along], images: int, threads: int, even: bool = False) -> Cut:
    """About how many cycles an image takes: register tiles are as equal as can be, and one of few rows reads a weight
    for each of them. Of tiles that are not `even` the longest keeps its thread while others share the rest; a task has
    all panels or one. Weights packed on the way are packed for every tile, or once a panel by each thread."""
    m, (z, y, x) = s.machine, ways
    from .direct_blocking import images_of_a_tile, tuned  # which is made of this module

    costs, vectors = tuned(m), -(-s.outputs // m.lanes)
    panels = -(-vectors // m.vectors)
    pixels = z.edges[-1] * y.edges[-1] * x.edges[-1]
    tiles = (len(z.edges) - 1) * (len(y.edges) - 1) * (len(x.edges) - 1)
    together = images_of_a_tile(-(-pixels // tiles), images, m.rows) if z.edges[-1] == 1 else 1
    tiles_of_an_image = tiles / together
    products = z.walked * y.walked * x.walked * s.channels * vectors
    work = products * max(1.0, tiles_of_an_image * LEAST_ROWS / pixels)
    work += panels * (pixels / m.rows + tiles_of_an_image / 2) * costs.call
    region = costs.pack * z.inputs * y.inputs * x.inputs * s.channels / m.lanes + tiles_of_an_image * costs.task
    share = 1 / threads if even else max(1 / threads, z.longest * y.longest * x.longest / max(1, images * s.groups))
    weights = 0.0 if s.held else costs.weight * s.channels * len(z.taps) * len(y.taps) * len(x.taps) * vectors
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
            return [along(q.taps[0], q.stride[0], s.input_size[0], size[0], 1)]
        return cuts(q.taps[axis], q.stride[axis], s.input_size[axis], size[axis], largest[axis - 1])

    z, y, x = (along(q.taps[a], q.stride[a], s.input_size[a], size[a], tile[a]) for a in AXES)
    best = cost(s, (z, y, x), images, threads, True)
    earned = EARNED * best.cycles
    for z, y, x in product(ways(0), ways(1), ways(2)):
        if z.most * y.most * x.most > room:
            continue
        found = cost(s, (z, y, x), images, threads)
        if found.cycles < min(earned, best.cycles):
            best = found
    return best
