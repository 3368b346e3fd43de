"""A lane an output channel: depthwise convolutions, and groups so small that the channels of one would fill no vector.

In native code: drivers/lanes.pxi, drivers/patches.pxi, drivers/strips.pxi, drivers/lanes_gradient.pxi.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, ClassVar

from ... import _native
from ..operands import FIRST
from ..passes import even, span
from ..record import NamedTuple
from ..types import codes
from .method import (
    MANY_IMAGES,
    Array,
    Bound,
    Direction,
    GradientProgram,
    Offer,
    Packed,
    Pass,
    Problem,
    Program,
    Sums,
    Told,
    Triple,
    aligned_bytes,
    bent,
    pieces,
    products,
    split,
    sum_bound,
    two_axes,
)

MOST_PIXELS = 768  # outputs of a tile
GATHER_ABOVE_BYTES = 4 << 20  # a window larger than this is never packed whole
PARTIAL_SUMS_BYTES = 8 << 20  # all partial sums of a weight gradient
REGION_SHARE = 48  # of the second-level cache, in 128ths: packed input of a chunk, its output beside it
IN_PLACE, REGION = "in place", "packed region"
PLANES = "planes, a lane a pixel"
TRANSPOSED = "planes, transposed a vector of channels at a time"


class Tuned:
    """The method's numbers (`tuning`), in channels of a group."""

    channels: int = 8  # up to which the lanes idle less than in the direct kernels
    channels_gradient: int = 8  # likewise, of the weight gradient
    idle: int = 4  # from which on rectangles of hardly any pixels are slower than direct


class Blocking(NamedTuple):
    """Loop sizes of one pass; a chunk is so many output channels side by side."""

    tile: tuple[int, int]
    chunks_per_task: int
    capped: bool  # its scratch, by the caller


@lru_cache(maxsize=256)
def blocking(p: Problem, q: Pass, threads: int, in_place: bool) -> Blocking:
    """Loop sizes for one image; `in_place` reads a channels-last input as it lies."""
    m, size = p.machine, q.output_size(p.size)[1:]
    chunks = -(-p.groups * p.outputs // m.chunk)
    span_y, span_x = span(q.taps[1]), span(q.taps[2])
    budget = m.room(REGION_SHARE, 6)

    def row_bytes(columns: int) -> int:
        return ((columns - 1) * q.stride[2] + span_x) * p.channels * m.chunk * m.element

    tile_x = split(size[1], MOST_PIXELS)
    if not in_place:
        while tile_x > 16 and span_y * row_bytes(tile_x) > budget:
            tile_x = split(size[1], tile_x // 2)
    tile_y = MOST_PIXELS // tile_x
    if not in_place:
        tile_y = min(tile_y, (budget // row_bytes(tile_x) - span_y) // q.stride[1] + 1)
    tile_y = max(1, min(size[0], tile_y))
    tile_y = split(size[0], tile_y)
    chunks_per_task = chunks
    if threads > 1:
        tiles = -(-max(1, size[1]) // tile_x)
        while -(-max(1, size[0]) // tile_y) * tiles < 4 * threads and tile_y > 8:
            tile_y = split(size[0], tile_y - 1)
        tiles *= -(-max(1, size[0]) // tile_y)
        chunks_per_task = max(1, chunks // -(-4 * threads // tiles))
    return Blocking((tile_y, tile_x), chunks_per_task, m.capped)


def why_not(p: Problem, q: Pass, most: int) -> str | None:
    """Why one pass cannot run in these kernels, or the lanes would idle; groups of up to `most` channels do not."""
    m = p.machine
    if p.groups == 1:
        return "there is one group"
    if p.channels == 0 or p.outputs == 0 or 0 in q.counts:
        return "a sum is empty"
    if p.channels > 1 and not _native.lanes_picked(m.compute, p.channels, p.outputs):
        if p.outputs >= m.lanes or p.channels > 2 * m.lanes:
            return f"groups of {p.channels} channels and {p.outputs} outputs fill the vectors of the direct kernels"
    elif max(p.channels, p.outputs if p.channels > 1 else 1) > most:
        return f"groups of more than {most} channels leave the lanes of the direct kernels idle less"
    height = span(q.taps[1])
    breadth = 15 * (1 if q.counts[2] == 1 else q.stride[2]) + span(q.taps[2])  # under sixteen outputs
    if height * breadth * p.channels * m.chunk * m.element > GATHER_ABOVE_BYTES:
        return f"a window of {height} x {breadth} pixels is too large to be packed whole"
    return None


class Lanes:
    """The method: wherever it can, but for kernels far larger than what they are laid over."""

    word, title, variants = "direct", "A lane an output channel", ("lanes",)
    halves, rounds = "a lane an output channel reads them in vectors, and they are few", True
    former: ClassVar[dict[str, str]] = {}

    def why_not(self, p: Problem, variant: str | None = None) -> str | None:
        if two_axes(p):
            from . import lanes_volume

            if why := lanes_volume.why_not(p):
                return why
        tuned = p.machine.tuning.of("lanes", Tuned)
        most = tuned.channels_gradient if p.gradient_of_weight else tuned.channels
        return next((why for q in p.passes if (why := why_not(p, q, most))), None)

    def offer(self, p: Problem) -> Offer:
        """Where the kernel is twice as large as what it is laid over, the outputs would be cut into rectangles of
        hardly any pixels. A piece of the image that is computed apart is no larger, so that it agrees."""
        idle = (
            not p.gradient_of_weight
            and not p.mode
            and p.channels >= p.machine.tuning.of("lanes", Tuned).idle
            and all(span(q.taps[a]) >= 2 * p.input_size[a] for q in p.passes for a in (1, 2))
        )
        if idle:
            return Offer("lanes", False, "the kernel is twice as large as what it is laid over")
        return Offer("lanes", True, "")

    def program(self, p: Problem, variant: str) -> Program:
        if two_axes(p):
            from .lanes_volume import LanesVolume

            return LanesVolume(p)
        return LanesProgram(p)

    def gradient_program(self, p: Problem, variant: str) -> GradientProgram:
        if two_axes(p):
            from .lanes_volume import LanesVolumeGradient

            return LanesVolumeGradient(p)
        return LanesGradient(p)

    def grain(self, p: Problem, variant: str) -> Triple:
        return 1, 1, 1

    def bound(self, p: Problem, variant: str) -> Bound:
        return sum_bound(p)

    def example(self, case: Any, variant: str, direction: Direction) -> Any:
        """Groups of up to three channels; of more than one only with fewer outputs than any vector has lanes."""
        if case.axes == 3:
            return None
        few = case.index % 3 + 1
        narrow = case.dtypes[0] in ("float16", "float32")
        more = case.index % 4 + 1 if few == 1 else case.index % 2 + 1 if narrow else 1
        groups = max(2, case.in_channels // few)
        if direction is Direction.INPUT_GRADIENT:
            few, more = more, few
        return bent(case, in_channels=few * groups, out_channels=more * groups, groups=groups)


class LanesProgram(Program):
    """All passes of the driver; arrays that lie as needed go patch by patch."""

    def __init__(self, p: Problem) -> None:
        self.problem = p
        self.largest = max(p.passes, key=lambda q: prod(q.counts))
        self.covers = sum(prod(q.output_size(p.size)) for q in p.passes) == prod(p.size)
        self.apart = p.channels == p.outputs == 1 and not p.mode and p.types.read_in_place
        self.made: dict[tuple[int, bool], _native.Lanes] = {}
        self.taps = prod(sum(map(len, {q.places[axis] for q in p.passes})) for axis in (1, 2))  # packed once each
        self.threads = p.machine.threads
        # of an image: bound by memory more than by arithmetic
        outputs = -(-p.groups * p.outputs // p.machine.lanes) * p.machine.lanes  # idle lanes take as long as others
        self.work = 4 * prod(self.largest.output_size(p.size)) * outputs * p.channels * self.taps
        self.first = self.native(p.geometry.batch, False)

    def native(self, batch: int, in_place: bool) -> _native.Lanes:
        """For so many images; `in_place`: the input is read as it lies, and not picked from."""
        key = (_native.threads_for(batch * self.work, self.threads), in_place)
        made = self.made.get(key)
        if made is None:
            p = self.problem
            made = self.made[key] = _native.Lanes(codes(p.types), p, p.passes, blocking(p, self.largest, *key))
        return made

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        """Every output channel beside the next, as one group: [tap y][channel of its group][tap x][lane]."""
        p, numbers, rows, columns = self.problem, codes(self.problem.types), self.first.rows, self.first.columns
        groups, channels, outputs = p.groups, p.channels, p.groups * p.outputs
        packed = aligned_bytes(_native.packed_bytes(numbers.compute, 1, self.taps, channels, outputs))
        team = p.machine.threads if packed.size > 1 << 16 else 1
        if p.transposed and weight.shape[:2] != (groups, 1):
            _native.pack_lane_weights(numbers.compute, weight, numbers.weight, packed, groups, rows, columns, team)
            return (Packed(packed, True),)
        if channels > 1:  # channels and columns change places, and with them the order of the sums
            every = tuple(range(weight.shape[-1]))
            if columns == every[::-1]:
                weight = weight[..., ::-1]
            elif columns != every:
                weight = weight[..., columns]
            weight, columns = weight.swapaxes(1, -1), tuple(range(channels))
        finite = _native.pack_weights(
            numbers.compute, weight, numbers.weight, packed, 1, False, (rows, columns), team
        )
        return (Packed(packed, finite),)

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        if packed is None:
            packed = self.pack(weight.transpose(FIRST[weight.ndim][0]) if channels_last else weight)
        lies = self.apart and x.strides[-1 if channels_last else 1] == x.itemsize
        self.native(len(x), lies).run(
            x, weight, packed[0], bias, residual, out, activation, channels_last, self.threads
        )

    def need(self, prepared: bool) -> int:
        batch, team = self.problem.geometry.batch, self.problem.machine.threads
        most = max(self.native(batch, lies and self.apart).scratch_bytes(lies) for lies in (False, True)) * team
        cut = self.first.patches(max(MANY_IMAGES, batch), team)
        return max(most, cut[4]) if cut else most

    def told(self, channels_last: bool, prepared: bool) -> Told:
        p, m, g = self.problem, self.problem.machine, self.problem.geometry
        told: dict[str, Any] = {
            "packed_weight_bytes": _native.packed_bytes(m.compute, 1, self.taps, p.channels, p.groups * p.outputs),
            "multiplications": products(Sums.of(p), [even(q.output_size(p.size), (1, 1, 1)) for q in p.passes]),
            "remark": f"{'depthwise' if p.channels == 1 else 'grouped'} kernels, every lane an output channel with "
            "inputs of its own",
        }
        lies = channels_last and p.types.read_in_place
        if lies and (cut := self.first.patches(g.batch, m.threads)):
            return told_of_patches(p, cut, **told)
        team = _native.threads_for(g.batch * self.work, self.threads)
        lies = lies and not p.mode
        alone = lies and self.apart
        b, native = blocking(p, self.largest, team, alone), self.native(g.batch, alone)
        scratch = native.scratch_bytes(lies)
        if not channels_last and (native.transposed() or native.flat()):
            across = native.transposed() > 0
            scratch = native.transposed() or native.flat_bytes()
            tasks = g.batch * p.groups // (m.lanes if across else 1)
            return Told(
                tile=p.size[1:], block=f"{m.lanes} channels" if across else "a channel",
                register_tile=(8, m.lanes) if across else (8 * m.lanes, 1), source=TRANSPOSED if across else PLANES,
                workspace_bytes=scratch * _native.team_for(team, tasks, scratch), threads=team, **told,
            )  # fmt: skip
        tiles = g.batch * -(-p.size[1] // b.tile[0]) * -(-p.size[2] // b.tile[1])
        tasks = pieces(p.groups * p.outputs, m.chunk, b.chunks_per_task) * tiles
        return Told(
            tile=b.tile, block=f"{b.chunks_per_task} chunks of {m.chunk} output channels", register_tile=(8, m.chunk),
            source=IN_PLACE if native.in_place(lies) else REGION,
            workspace_bytes=scratch * _native.team_for(team, tasks, scratch), threads=team, **told,
        )  # fmt: skip


def told_of_patches(p: Problem, cut: tuple[int, int, int, int, int, bool], **told: Any) -> Told:
    """What is told of a run that `_native.Lanes.patches` or `_native.Depthwise.patches` cuts so."""
    rows, columns, tasks, team, scratch, packs = cut
    *planes, height, width = p.size if two_axes(p) else p.size[1:]
    return Told(
        tile=(*[1 for _ in planes], -(-prod((*planes, height)) * p.geometry.batch // tasks), width),
        block=f"patches of {rows} x {columns} pixels", register_tile=(rows * columns, p.machine.lanes),
        source=REGION if packs else IN_PLACE, workspace_bytes=scratch, threads=team, **told,
    )  # fmt: skip


# ---- the weight gradient -------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def gradient_parts(p: Problem) -> int:
    """Pieces of the pixel rows that the weight gradient sums apart, by shape alone: some rows each."""
    g, m = p.geometry, p.machine
    chunks = -(-g.out_channels // m.chunk)
    sums_bytes = chunks * prod(g.kernel_size) * p.channels * m.chunk * m.element
    return max(1, min(g.batch * g.output_size[1] // 7, 32, -(-64 // chunks), PARTIAL_SUMS_BYTES // sums_bytes))


class GradientBlocking(NamedTuple):
    """Loop sizes of the weight gradient."""

    tile: tuple[int, int]
    parts: int


class LanesGradient(GradientProgram):
    """The weight gradient."""

    def __init__(self, p: Problem) -> None:
        self.threads, (q,) = p.machine.threads, p.passes
        # a tile is a piece of the sum, so that it must not depend on layout or threads
        b = GradientBlocking(blocking(p, q, 4, False).tile, gradient_parts(p))
        self.native = _native.LanesGradient(codes(p.types), p, q, b)

    def run(self, x: Array, dy: Array, out: Array) -> None:
        self.native.run(x, dy, out, self.threads)


METHOD = Lanes()
