"""The programs of Winograd along lines, and their loop sizes (drivers/winograd_lines.pxi)."""

from __future__ import annotations

from functools import lru_cache
from math import prod

from ... import _native
from .. import special
from ..passes import spacing
from ..record import NamedTuple
from ..types import codes
from .method import (
    MANY_IMAGES,
    Array,
    Operands,
    Packed,
    Pass,
    Problem,
    Program,
    Told,
    Triple,
    aligned_bytes,
    packed_bytes,
    panels,
    pieces,
)
from .winograd_programs import dilation_phases

TILE = _native.LINE_TILE  # outputs of a tile along an axis that is transformed
# Of the second-level cache, in 128ths: a slice of weights; inputs and sums of a block, one element of which is in use.
WEIGHT_SLICE, BLOCK = 8, 192


class Line(NamedTuple):
    """How an axis is transformed (fc_line_kind)."""

    number: int
    taps: int  # of a block, the last
    products: int  # of a tile

    def blocks(self, taps: int) -> int:
        """Blocks of so many taps: of TILE each but for the last."""
        return 1 + max(0, -(-(taps - self.taps) // TILE))


LINES = {name: Line(*numbers) for name, numbers in _native.winograd_line_kinds().items()}


class Cut(NamedTuple):
    """How a pass is cut: one axis is `outer`, and along the others (row, column) blocks of taps lie."""

    order: Triple  # the axes of a pass that are outer, row and column
    counts: Triple  # taps, in that order
    strides: Triple
    apart: Triple
    lines: tuple[Line | None, Line | None]  # of row and column; None: not transformed

    @property
    def kinds(self) -> tuple[int, int]:
        """As native code numbers them."""
        row, column = (-1 if line is None else line.number for line in self.lines)
        return row, column

    @property
    def weights(self) -> int:
        """Blocks of taps: products of an element and a channel."""
        return self.counts[0] * prod(
            line.blocks(taps) if line else taps for taps, line in zip(self.counts[1:], self.lines, strict=True)
        )

    @property
    def elements(self) -> int:
        """Products of a tile and a block."""
        return prod(line.products for line in self.lines if line)

    @property
    def axes(self) -> int:
        """How many are transformed."""
        return sum(map(bool, self.lines))

    @property
    def tile(self) -> tuple[int, int]:
        """Outputs of a tile along row and column."""
        row, column = (TILE if line else 1 for line in self.lines)
        return row, column

    def turned(self, size: Triple) -> Triple:
        """A size in the order outer, row, column."""
        outer, row, column = (size[axis] for axis in self.order)
        return outer, row, column


def line_of(taps: int, stride: int) -> Line | None:
    """How an axis of so many taps is transformed, a block of them as long as it takes the fewest products."""
    if stride != 1 or taps < 3:
        return None
    return LINES["three" if taps == 3 else "five" if taps % TILE == 1 else "four"]


@lru_cache(maxsize=256)
def cut_of(q: Pass) -> Cut | None:
    """How a pass is cut; None where no axis is transformed."""
    apart = spacing(q)
    strides = tuple(stride // d if stride % d == 0 else 0 for stride, d in zip(q.stride, apart, strict=True))
    if q.stride == (1, 1, 1):
        strides = (1, 1, 1)  # in every phase
    lines = [line_of(taps, stride) for taps, stride in zip(q.counts, strides, strict=True)]
    if not any(lines):
        return None
    order = (0, 1, 2) if not lines[0] or (lines[1] and lines[2]) else (2, 0, 1) if lines[1] else (1, 0, 2)
    counts, along, spaces = (tuple(numbers[axis] for axis in order) for numbers in (q.counts, strides, apart))
    own = [lines[axis] for axis in order[1:]]
    if None in own:  # a longer block errs little along one axis
        own = [
            LINES["seven"] if line and q.counts[axis] in (6, 7) else line
            for axis, line in zip(order[1:], own, strict=True)
        ]
    return Cut(order, counts, along, spaces, (own[0], own[1]))  # type: ignore[arg-type]


class Blocking(NamedTuple):
    """Loop sizes of the driver."""

    rows: int  # of tiles of a block
    columns: int
    reduction: int
    panels_per_task: int


@lru_cache(maxsize=256)
def blocking(p: Problem, cut: Cut, size: Triple, batch: int) -> Blocking:
    """Loop sizes for so many images of outputs of such a size (outer, row, column)."""
    m, threads = p.machine, p.machine.threads
    outer, (rows, columns) = batch * size[0], (-(-n // tile) for n, tile in zip(size[1:], cut.tile, strict=True))
    rows, columns = max(1, rows), max(1, columns)
    panels_, budget = -(-p.outputs // m.width), min(m.share, m.tuning.share(BLOCK))
    reduction = max(32, m.tuning.share(WEIGHT_SLICE) // (m.element * m.width))

    def fits(rows: int, columns: int) -> bool:
        own = Blocking(rows, columns, reduction, 1)
        return budget >= _native.winograd_lines_scratch_bytes(
            m.compute, cut.kinds, p.channels, cut.counts, cut.strides, own
        )

    along_row = along_column = 1  # blocks
    while along_column < columns and not fits(1, -(-columns // along_column)):
        along_column += 1
    while along_row < rows and not fits(-(-rows // along_row), -(-columns // along_column)):
        along_row += 1
    blocks = outer * along_row * along_column
    # tiles that fill one register tile stay together and share out the panels: each thread reads its own weights
    few = outer * rows * columns <= m.rows and (panels_ >= 2 * threads or panels_ % threads == 0)
    while blocks % threads and not few and blocks < 4 * threads and (along_row < rows or along_column < columns):
        if rows // along_row > columns // along_column:
            along_row += 1
        else:
            along_column += 1
        blocks = outer * along_row * along_column
    panels_per_task = panels_ if blocks % threads == 0 or blocks >= 4 * threads else max(1, panels_ // threads)
    return Blocking(-(-rows // along_row), -(-columns // along_column), reduction, panels_per_task)


class WinogradLinesProgram(Program):
    """A pass whose inputs are transformed, a phase of the dilation after the other."""

    def __init__(self, p: Problem) -> None:
        self.problem = p
        (self.pass_,) = p.passes
        cut = cut_of(self.pass_)
        assert cut is not None
        self.cut, self.parts = cut, dilation_phases(self.pass_, p.size)
        self.made: dict[tuple[int, int], _native.WinogradLines] = {}
        self.rows = 0 if cut.order[0] else cut.tile[0]  # of outputs that are reported together

    def _blocking(self, part: Pass, batch: int) -> Blocking:
        return blocking(self.problem, self.cut, self.cut.turned(part.output_size(self.problem.size)), batch)

    def native(self, i: int, batch: int) -> _native.WinogradLines:
        """For part i of so many images."""
        if (known := self.made.get((i, batch))) is not None:
            return known
        p, part, cut = self.problem, self.parts[i], self.cut
        program = _native.WinogradLines(codes(p.types), p, part, self._blocking(part, batch), cut.order, cut.kinds)
        if len(self.made) >= 4 * len(self.parts):
            self.made = {}
        self.made[i, batch] = program
        return program

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        p, cut = self.problem, self.cut
        own = packed_bytes(p, prod(cut.counts))
        # one piece of memory: of several, the C library gives what is free at the end back to the system, and every
        # call takes page faults again
        room = aligned_bytes(own + self._transformed_bytes(own))
        packed, transformed = panels(p, self.pass_, weight, room[:own]), room[own:]
        if not packed.finite:
            return (packed,)
        team = p.machine.threads if packed.panels.size > 1 << 16 else 1
        _, rows, columns = self.pass_.counts
        _native.winograd_lines_weights(
            p.machine.compute, cut.kinds, packed.panels, transformed, p.channels, p.outputs, cut.counts,
            cut.turned((rows * columns, columns, 1)), Blocking(1, 1, 1, 1), team,
        )  # fmt: skip
        return (packed._replace(transformed=transformed),)

    def _transformed_bytes(self, packed: int) -> int:
        """Of so many bytes of packed weights: elements of a panel lie a vector further apart."""
        p, m, cut = self.problem, self.problem.machine, self.cut
        apart = -(-p.outputs // m.width) * cut.elements * m.lanes * m.element
        return packed // prod(cut.counts) * cut.weights * cut.elements + apart

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        a = Operands(x, weight, None, bias, residual, out, activation, channels_last)
        if packed is None:
            a = a.logical()
            packed = self.pack(a.weight)
        a = a._replace(packed=packed[0])
        for i, part in enumerate(self.parts):
            usable = packed[0].transformed is not None
            special.run(self.problem, part, a, usable and self.native(i, a.batch), self.rows)

    def need(self, prepared: bool) -> int:
        most = max(
            self.native(i, batch).scratch_bytes()
            for i in range(len(self.parts)) for batch in (self.problem.geometry.batch, MANY_IMAGES)
        )  # fmt: skip
        return most * self.problem.machine.threads

    def told(self, channels_last: bool, prepared: bool) -> Told:
        p, m, cut, batch = self.problem, self.problem.machine, self.cut, self.problem.geometry.batch
        b, scratch = self._blocking(self.parts[0], batch), self.native(0, batch).scratch_bytes()
        size = cut.turned(self.parts[0].output_size(p.size))
        rows, columns = (-(-n // tile) for n, tile in zip(size[1:], cut.tile, strict=True))
        outer = batch * size[0]
        tasks = outer * -(-rows // b.rows) * -(-columns // b.columns) * pieces(p.outputs, m.width, b.panels_per_task)
        packed = packed_bytes(p, prod(cut.counts))
        products = cut.elements * cut.weights
        return Told(
            tile=cut.tile, block=f"{b.rows} x {b.columns} tiles", register_tile=(m.rows, m.width),
            source=f"tiles transformed along {cut.axes} axes",
            workspace_bytes=scratch * _native.team_for(m.threads, tasks, scratch),
            packed_weight_bytes=packed + self._transformed_bytes(packed),
            multiplications=len(self.parts) * outer * rows * columns * products * p.channels * p.outputs,
            threads=m.threads,
        )  # fmt: skip
