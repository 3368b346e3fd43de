"""The gradient of a weight, directly: sums over images and pixels (drivers/weight_gradient.pxi)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from math import gcd, inf, prod

import numpy as np

from ... import _native
from ..passes import Triple
from ..problem import Direction, Machine, Problem, Use
from ..record import NamedTuple
from ..types import codes
from .direct_blocking import REGION_SHARE, WEIGHT_SLICE, tuned
from .exchange import MOST_GROUPS
from .method import LONG_SUM, Array, Program, split

PARTIAL_SUMS_BYTES = 8 << 20  # all partial sums
SUMS = 40  # of the second-level cache, in 128ths: sums of a block
PART_PIXELS = 48  # of a part at least: so many products for every sum that is begun and added up
TASKS = 8, 16, 32  # that parts are to make of the blocks
TILE_COLUMNS = 320  # at most: with 160 register tiles begin and end twice as often (2 to 5 % of long rows, Zen 4)
GATHER_ABOVE_BYTES = 4 << 20  # a window larger than this is never packed whole
# In multiply-adds of a vector (Zen 4; small maps of 24 to 128 channels, cut in either way): a vector of sums of a part,
# written and added up, and the threads that come together once more for that.
PARTIAL_SUM, TOGETHER = 12, 30_000
# A register tile of fewer rows waits for its vectors of grad_output, which come from the second level.
NARROW = 4
LINE_SETS = 1024  # bytes: pixels so far apart fall into a few sets of the first level
FAR = 4  # times as long vectors take to be packed that lie beyond the second-level cache, and half that where they lie
# Teams that tasks shall come out even for, and what each of them counts.
TEAMS = ((2, 0.6), (4, 0.3), (8, 0.1))


class Blocking(NamedTuple):
    """Loop sizes; `parts` cuts the sum, by shape alone."""

    taps: Triple
    channels: int
    panels: int
    tile: Triple  # of grad_output
    chunk_rows: int
    parts: int


class _Cut(NamedTuple):
    """How the gradient is shared out: a block of sums, and parts of the pixels."""

    taps: tuple[int, int]
    channels: int
    panels: int
    parts: int


@lru_cache(maxsize=256)
def blocking(p: Problem) -> Blocking:
    """Loop sizes from the shapes and the register tile, and from the batch, which the sums run over."""
    m, g = p.machine, p.geometry
    slice_, region_most = (m.tuning.share(parts) for parts in (WEIGHT_SLICE, REGION_SHARE))
    outs, strides, dilations = g.output_size[1:], g.stride[1:], g.dilation[1:]
    panel_bytes = _panel_bytes(p)
    # a chunk of one panel stays in the second level; blocks of a long sum are whole tiles, of few enough pixels
    pixels = max(m.rows, min(slice_ // panel_bytes, LONG_SUM // 2))
    tile_x = split(outs[1], min(pixels, TILE_COLUMNS))

    def region(tile_y: int, taps: tuple[int, int], count: int) -> int:
        def span(tile: int, axis: int) -> int:
            step = 1 if taps[axis] == 1 else strides[axis]
            return (tile - 1) * step + (taps[axis] - 1) * dilations[axis] + 1

        return span(tile_y, 0) * span(tile_x, 1) * count * m.element

    cut = _shared_out(p, region, lru_cache(lambda parts: _dealt(p, tile_x, parts)))
    taps, count = cut.taps, cut.channels
    chunk_rows = max(1, pixels // tile_x)
    tile_y = min(max(1, outs[0]), chunk_rows)
    while (
        tile_y + chunk_rows <= outs[0]
        and region(tile_y + chunk_rows, taps, count) <= region_most
        and (tile_y + chunk_rows) * tile_x * panel_bytes <= region_most // 2
        and (tile_y + chunk_rows) * tile_x <= LONG_SUM // 2
    ):
        tile_y += chunk_rows
    parts = cut.parts
    if parts > 1:
        tile_y, tile_x, tiles = _tiles(p, tile_y, tile_x, parts)
        parts = min(parts, tiles)
    return Blocking((1, *taps), count, cut.panels, (1, tile_y, tile_x), chunk_rows, max(1, parts))


def _panel_bytes(p: Problem) -> int:
    """Of the widest panel that outputs fill, a pixel."""
    m = p.machine
    return min(m.width, -(-max(1, p.outputs) // m.lanes) * m.lanes) * m.element


def _reading(m: Machine, channels: int, pixels: int) -> tuple[int, int]:
    """What reading a vector of channels-last pixels takes where it lies, and what packing it does."""
    near = tuned(m).pack
    lies, pack = (2 * near, FAR * near) if channels * pixels * m.element > m.tuning.second // 2 else (0, near)
    spread = channels * m.element % LINE_SETS != 0  # else pixels share cache sets
    return lies if spread else pack, pack


def _even(total: int, most: int, others: int, parts: int) -> int:
    """The size of tiles along an axis, up to `most`, of which `others` times as many can be dealt out evenly."""
    step = parts // gcd(parts, max(1, others))
    pieces = -(-total // most)
    return split(total, -(-total // min(total, -(-pieces // step) * step)))


def _tiles(p: Problem, tile_y: int, tile_x: int, parts: int) -> tuple[int, int, int]:
    """Rows and columns of tiles, no more than those given, that parts can share out evenly, and how many there are."""
    g = p.geometry
    others, (rows, columns) = g.batch * g.output_size[0], g.output_size[1:]
    if rows == 1:
        tile_x = _even(columns, tile_x, others, parts)
    else:
        tile_y = _even(rows, tile_y, others * -(-columns // tile_x), parts)
    return tile_y, tile_x, others * -(-rows // tile_y) * -(-columns // tile_x)


def _dealt(p: Problem, tile_x: int, parts: int) -> tuple[int, float]:
    """So many parts or fewer, as there are tiles, and how much longer the longest takes than it would of even ones."""
    *_, tiles = _tiles(p, max(1, p.geometry.output_size[1]), tile_x, parts)
    parts = max(1, min(parts, tiles))
    return parts, -(-tiles // parts) * parts / tiles if parts > 1 else 1.0


def _shared_out(
    p: Problem, region: Callable[[int, tuple[int, int], int], int], dealt: Callable[[int], tuple[int, float]]
) -> _Cut:
    """The blocks and parts that take least beside the products themselves: packing what several blocks read, adding up
    parts, and threads that wait for others."""
    m, g = p.machine, p.geometry
    pixels = max(1, g.batch * prod(g.output_size))
    each = pixels * g.groups * g.kernel_size[0]  # what costs are counted for
    macs = each * prod(g.kernel_size[1:]) * max(1, p.channels) * p.outputs
    teams = TEAMS if _native.threads_for(macs, 2) > 1 else ((1, 1.0),)
    reading = (
        _reading(m, g.groups * max(1, p.channels), g.batch * prod(g.input_size)),
        _reading(m, g.groups * p.outputs, pixels),
    )
    best, least = _Cut((1, 1), min(max(1, p.channels), m.rows), 1, 1), inf
    for cut in _blocks(p, region):
        taps, count, panels, _ = cut
        blocks = g.groups * g.kernel_size[0] * _times(p, taps) * -(-max(1, p.channels) // count)
        blocks *= -(-max(1, p.outputs) // (panels * m.width))
        work, beside = _of_a_pixel(p, cut, *reading)
        block_bytes = prod(taps) * count * panels * m.width * m.element
        most = min(pixels // PART_PIXELS, PARTIAL_SUMS_BYTES // (blocks * block_bytes))
        for wanted in sorted({1, *(n for n in (-(-tasks // blocks) for tasks in TASKS) if n <= most)}):
            parts, longest = dealt(wanted)
            tasks = blocks * parts
            own = (work + beside + tuned(m).task * tasks / each) * longest
            if parts > 1:
                own += PARTIAL_SUM * parts * work / pixels + TOGETHER / each
            own *= sum(share * -(-tasks // team) * team / tasks for team, share in teams)
            if own < least:
                best, least = cut._replace(parts=parts), own
    return best


def _times(p: Problem, taps: tuple[int, int]) -> int:
    """Blocks of so many taps of a plane of the kernel."""
    _, rows, columns = p.geometry.kernel_size
    return -(-rows // taps[0]) * -(-columns // taps[1])


def _blocks(p: Problem, region: Callable[[int, tuple[int, int], int], int]) -> Iterator[_Cut]:
    """Blocks of sums that stay in cache, as large as can be and in pieces."""
    m, (_, rows, columns), channels = p.machine, p.geometry.kernel_size, max(1, p.channels)
    sums, region_most = m.tuning.share(SUMS), m.tuning.share(REGION_SHARE)
    panels, lines, panel_bytes = -(-max(1, p.outputs) // m.width), min(channels, m.rows), _panel_bytes(p)
    along = [split(columns, -(-columns // n)) for n in (1, 2, 4, 8, 16, columns)]
    for taps in dict.fromkeys([(rows, columns), *((1, own) for own in along)]):
        if prod(taps) * lines * panel_bytes > sums or region(1, taps, lines) > GATHER_ABOVE_BYTES:
            continue
        most = min(channels, max(lines, sums // (prod(taps) * panel_bytes) // m.rows * m.rows), 256)
        while most > lines and region(1, taps, most) > region_most:
            most = max(lines, most // 2)
        fewest = -(-channels // most)
        for count in dict.fromkeys(split(channels, -(-channels // (fewest * n))) for n in (1, 2, 4)):
            if count >= lines:
                room = max(1, min(panels, sums // (prod(taps) * count * panel_bytes)))
                for panel_block in dict.fromkeys((1, split(panels, room), split(panels, -(-room // 2)))):
                    yield _Cut(taps, count, panel_block, 1)


def _of_a_pixel(p: Problem, cut: _Cut, x: tuple[int, int], dy: tuple[int, int]) -> tuple[int, int]:
    """(The products, what reading takes) of an output pixel of one group, in multiply-adds of a vector; `x` and `dy` as
    `_reading` says."""
    m, g, (taps, count, panels, _) = p.machine, p.geometry, cut
    _, rows, columns = g.kernel_size
    channel_blocks, vectors = -(-max(1, p.channels) // count), -(-max(1, p.outputs) // m.lanes)
    merged = count < m.rows  # taps of a row share a register tile
    lines = count * taps[1] if merged else count
    work = vectors * channel_blocks * rows * max(lines, NARROW * -(-lines // m.rows))
    work *= -(-columns // taps[1]) if merged else columns
    few_vectors, few_lines = _native.WEIGHT_GRADIENT_FEW
    picked = prod(stride for stride, own in zip(g.stride[1:], taps, strict=True) if own > 1)
    x_lies = prod(taps) * min(vectors, panels * m.vectors) <= few_vectors
    dy_lies = prod(taps) * count <= few_lines and p.outputs % m.lanes == 0
    beside = -(-vectors // (panels * m.vectors)) * -(-count // m.lanes) * (x[0] if x_lies else x[1] * picked)
    beside += vectors * dy[0 if dy_lies else 1]
    return work, beside * _times(p, taps) * channel_blocks


class DirectGradient:
    """The gradient; of images of a few pixels a convolution of the input by grad_output, whose sums run over the images
    in the micro-kernel."""

    def __init__(self, p: Problem) -> None:
        self.problem, g, self.turned = p, p.geometry, False
        self.few = (
            min(prod(g.output_size), prod(g.input_size)) <= tuned(p.machine).few_pixels
            and g.groups <= MOST_GROUPS
        )
        if self.few:
            self.inner = _of_few_pixels(p)
        else:
            own = _exchanged(p)
            self.turned = own is not None
            own = own or p
            self.native = _native.WeightGradient(codes(p.types), own, own.passes[0], blocking(own))

    def run(self, x: Array, dy: Array, out: Array) -> None:
        if self.few:
            self._few_pixels(x, dy, out)
            return
        team = _native.threads_for(dy.size * prod(out.shape[1:]), self.problem.machine.threads)
        if self.turned:
            x, dy, out = dy, x, np.flip(out.swapaxes(0, 1), tuple(range(2, out.ndim)))
        self.native.run(x, dy, out, team)

    def _few_pixels(self, x: Array, dy: Array, out: Array) -> None:
        """Of x, its channels in the place of the batch, by dy: the images are the channels of the sum."""
        p, x, dy, out = self.problem, x.swapaxes(0, 1), dy.swapaxes(0, 1), out.swapaxes(0, 1)
        if p.groups == 1:  # slices would take as long as the least gradients do
            self.inner.run(x, dy, None, None, None, out, 0, False)
            return
        for group in range(p.groups):
            ours = slice(group * p.outputs, (group + 1) * p.outputs)
            theirs = slice(group * p.channels, (group + 1) * p.channels)
            self.inner.run(x[theirs], dy[ours], None, None, None, out[:, ours], 0, False)



def _exchanged(p: Problem) -> Problem | None:
    """The gradient with x and grad_output in each other's place, where outputs are so few that channels fill the
    vectors better: at stride 1 it is that of the kernel read backwards."""
    g, lanes = p.geometry, p.machine.lanes
    if p.groups != 1 or p.mode or set(g.stride) != {1} or p.types.input != p.types.weight:
        return None
    if 4 * p.outputs * -(-p.channels // lanes) > 3 * p.channels * -(-p.outputs // lanes):
        return None
    reach = [(k - 1) * d for k, d in zip(g.kernel_size, g.dilation, strict=True)]
    return p._replace(geometry=g._replace(
        in_channels=g.out_channels, out_channels=g.in_channels, input_size=g.output_size, output_size=g.input_size,
        padding=tuple((r - before, r - after) for r, (before, after) in zip(reach, g.padding, strict=True)),
    ))  # fmt: skip


def _of_few_pixels(p: Problem) -> Program:
    """The convolution whose outputs are the gradient of one group."""
    from .direct import METHOD

    g = p.geometry
    over = g._replace(
        batch=p.channels, in_channels=g.batch, out_channels=p.outputs, groups=1, kernel_size=g.output_size,
        output_size=g.kernel_size, stride=g.dilation, dilation=g.stride,
    )  # fmt: skip
    types = p.types._replace(packed="bfloat16") if p.types.rounded else p.types  # both operands are rounded
    return METHOD.program(Problem(over, Direction.FORWARD, types, Use.ONCE, p.machine, "direct"), "")
