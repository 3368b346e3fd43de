"""The programs of Winograd convolution, and their loop sizes (drivers/winograd.pxi)."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise, product
from math import prod

import numpy as np

from ... import _native
from .. import special
from ..passes import spacing, triple
from ..record import NamedTuple
from ..types import codes
from .method import (
    MANY_IMAGES,
    Array,
    From,
    Operands,
    Packed,
    Pass,
    Problem,
    Program,
    Sums,
    Told,
    Triple,
    aligned_bytes,
    most_tiles,
    packed_bytes,
    packs_first,
    panels,
    pieces,
    split,
    two_axes,
)

CHANNELS = _native.WINOGRAD_CHANNELS  # of few tiles, or of a weight gradient, together
# Of the second-level cache, in 128ths: sums of a block of tiles, transformed weights of a slice, transformed input.
WEIGHT_SLICE, SUMS, SLICE, INPUT = 8, 81, 72, 64


class Kind(NamedTuple):
    """A kind (fc_winograd in src/fastconv.h): what a tile has along each axis."""

    number: int  # fc_winograd_kind
    tile: int  # outputs
    stride: int
    taps: int
    elements: int  # products
    weights: int  # different transformed weights
    extent: int  # inputs
    last: tuple[int, ...]  # products of the last tile, by its outputs (0: all)

    def shared(self, outputs: int) -> tuple[tuple[int, int], ...]:
        """(products, tiles): of so many outputs, those that all tiles have, and those that whole tiles alone have."""
        whole, rest = divmod(outputs, self.tile)
        last = self.last[rest]
        both = (last, whole + (rest > 0)), (self.elements - last, whole)
        return tuple((products, tiles) for products, tiles in both if products * tiles)

    def products(self, outputs: int) -> int:
        """Of the tiles of so many outputs."""
        return sum(products * tiles for products, tiles in self.shared(outputs))


LARGE, SMALL, STRIDED, STRIDED_LARGE = "4x4", "2x2", "2x2 at stride 2", "4x4 at stride 2"
_ALL = {name: Kind(*numbers) for name, numbers in _native.winograd_kinds().items()}
KINDS = {name: _ALL[name] for name in (LARGE, SMALL, STRIDED, STRIDED_LARGE)}
# Of an input gradient at stride 2: in every phase of 4 x 4 taps, and in all phases of 3 x 3 taps at once.
TWO_TAPS = _ALL["2x2 of two taps"]
PHASES = {STRIDED: _ALL["2x2 of every phase"], STRIDED_LARGE: _ALL["4x4 of every phase"]}


def kind_of(p: Problem, variant: str) -> Kind:
    """The kind that computes the passes of a problem."""
    if p.transposed and KINDS[variant].stride > 1:
        return PHASES[variant] if whole(p) else TWO_TAPS
    return KINDS[variant]


@lru_cache(maxsize=256)
def whole(p: Problem) -> Pass | None:
    """All phases of an input gradient of 3 x 3 taps at stride 2 as one pass, whose taps are counted as those of the
    kernel; None of another problem.

    Its outputs 2 i meet the middle tap of input i, and 2 i + 1 the outer ones of i and i + 1: so the padding is odd.
    """
    g = p.geometry
    kernel = (g.kernel_size[1:], g.stride[1:], g.dilation[1:]) == ((3, 3), (2, 2), (1, 1))
    if not kernel or not p.transposed or two_axes(p) or not all(before % 2 for before, _ in g.padding[1:]):
        return None
    first = [(before - 1) // 2 for before, _ in g.padding[1:]]
    rows, columns = (tuple(range(at, at + 3)) for at in first)
    return Pass(((0,), rows, columns), ((0,), (0, 1, 2), (0, 1, 2)), (1, 1, 1))


class Tuned:
    """The method's numbers (`tuning`): all are of one image, so that a batch split changes nothing."""

    gradient: From = From(16, 4, 1 << 20)  # of the weight, whose sums are transformed once, in all
    tiles_gradient: int = 9  # of the whole batch
    size_bfloat16: int = 12  # outputs a side from which on it beats direct products of bfloat16
    batch_channels: int = 32  # of a training step, which transforms the weights once for the batch
    batch_tiles: int = 64  # of 4 x 4 outputs, over the batch
    few_tiles: int = 4  # of a batch: more make up for storing the transformed weights
    held_bytes: int = 16 << 20  # and for such a batch a plan holds no more of them than a cache does


def tuned(p: Problem) -> Tuned:
    """The numbers of the machine."""
    return p.machine.tuning.of("winograd", Tuned)


# ---- forward passes and input gradients ----------------------------------------------------------------------------


class Blocking(NamedTuple):
    """Loop sizes of the driver."""

    few: bool  # weights are transformed in registers, whether a plan holds their transform or not
    planes: int  # of outputs of a block
    tiles: int  # of a block, in all its planes
    reduction: int
    slice: int  # channels whose weights are transformed at a time, where no plan holds them
    panels_per_task: int


def tiles_of(kind: Kind, batch: int, size: Triple) -> int:
    """Tiles of so many outputs of a size, in all planes."""
    return batch * size[0] * -(-size[1] // kind.tile) * -(-size[2] // kind.tile)


def products_before(kind: Kind, size: Triple, tile: int) -> int:
    """Of the tiles of planes of such a size, how many those before one of them have."""
    columns = -(-size[2] // kind.tile)
    (plane, row), column = divmod(tile // columns, -(-size[1] // kind.tile)), tile % columns
    across, down = kind.products(size[2]), kind.products(size[1])
    own = min(kind.elements, down - row * kind.elements)
    return (plane * down + row * kind.elements) * across + own * column * kind.elements


def balanced(kind: Kind, size: Triple, tiles: int, block: int, most: int, threads: int) -> int:
    """`block` of so many tiles or some more, such that the thread with most products has least: a map's last tiles have
    fewer. Each thread has as many blocks, side by side, and the first block what is left."""
    blocks = -(-tiles // block)
    if blocks < 2 or blocks % threads or not any(n % kind.tile for n in size[1:]):
        return block

    def largest(block: int) -> int:
        ends = [products_before(kind, size, max(0, tiles - k * block)) for k in range(0, blocks + 1, blocks // threads)]
        return max(end - begin for end, begin in pairwise(ends))

    return min(range(block, max(block, min(most, (tiles - 1) // (blocks - 1))) + 1), key=largest)


def few_tiles(p: Problem, kind: Kind, tiles: int, prepared: bool) -> bool:
    """Whether so few tiles that transforming the weights in registers costs less than reading their transform.

    The bits are the same either way.
    """
    m, t = p.machine, tuned(p)
    held = prepared and kind.weights**2 * p.channels * p.outputs * m.element <= t.held_bytes
    flat = p.size[0] == p.input_size[0] == 1
    return flat and kind == KINDS[LARGE] and m.vectors == 4 and tiles <= t.few_tiles and not held


MOST_PLANES = 4  # of outputs of a block: the planes under neighbouring ones are transformed once for all


@lru_cache(maxsize=256)
def blocking(p: Problem, kind: Kind, batch: int, size: Triple, transformed: bool) -> Blocking:
    """Loop sizes for so many images of a size of outputs.

    With `transformed` weights at hand, a block's transformed input stays in the second-level cache. Without, its sums
    and a slice of transformed weights do, and a block has as many tiles as that allows, to use the slice often.
    """
    m, q, threads = p.machine, p.passes[0], p.machine.threads
    deep, planes = q.counts[0], split(p.size[0], MOST_PLANES)
    channels = p.channels * deep
    elements, weights = kind.elements**2, kind.weights**2
    tiles = max(1, tiles_of(kind, batch, size))  # an empty batch has loop sizes too
    few = few_tiles(p, kind, tiles, transformed)
    under = -(-p.channels * ((planes - 1) * q.stride[0] + deep) // planes)  # transformed inputs of a tile
    leading = -(-under // m.lanes) * m.lanes + m.lanes
    panels = -(-p.outputs // m.width)
    slice_bytes = min(m.tuning.share(SLICE), m.share // 3)
    part = max(1, min(channels, slice_bytes // (weights * m.element * m.width)))
    if few:
        most, part = tiles, CHANNELS
    elif transformed:
        most = max(4 * m.rows, min(16 * m.rows, m.tuning.share(INPUT) // (elements * m.element * leading)))
    else:
        most = max(m.rows, m.tuning.share(SUMS) // (elements * m.element * m.width))
    bound = planes * most_tiles(p, -(-max(most, tiles) // planes), lambda block: _native.winograd_scratch_bytes(
        m.compute, kind.number, p.channels, deep, q.stride[0], Blocking(few, planes, planes * block, 0, part, 1), block,
        transformed,
    ))  # fmt: skip
    most = min(most, bound)
    # the same number of equal blocks for every thread, near that size; few tiles stay together and share out the panels
    blocks = max(round(tiles / most / threads) * threads, -(-tiles // bound) if tiles > bound else 0)
    if blocks == 0:
        together = panels >= 2 * threads or (panels % threads == 0 and tiles <= 4 * m.rows)
        blocks = -(-tiles // most) if together else min(threads, -(-tiles // m.rows))
    block = -(-tiles // blocks)
    block = -(-block // planes) * planes if block + planes <= bound else max(1, block // planes) * planes
    if block >= planes:
        block = planes * balanced(kind, size, -(-tiles // max(1, size[0])), block // planes, bound // planes, threads)
    # every task transforms its tiles anew: no more of them than threads
    panels_per_task = panels if blocks % threads == 0 else max(1, -(-panels * blocks // threads))
    reduction = max(32, m.tuning.share(WEIGHT_SLICE) // (m.element * m.width))
    return Blocking(few, planes, block, reduction, part, panels_per_task)


def dilation_phases(q: Pass, size: Triple) -> tuple[Pass, ...]:
    """A pass into outputs of `size` as one for every phase of its dilation, each of which reads every d-th pixel."""
    apart = spacing(q)
    if apart == (1, 1, 1):
        return (q,)
    return tuple(
        q._replace(
            taps=triple(tuple(first + tap for tap in taps) for first, taps in zip(phase, q.taps, strict=True)),
            stride=apart, phase=triple(phase), step=apart,
        )
        for phase in product(*(range(min(d, n)) for d, n in zip(apart, size, strict=True)))
    )  # fmt: skip


class WinogradProgram(Program):
    """Passes whose tiles are transformed, a phase of the dilation after the other."""

    def __init__(self, p: Problem, variant: str) -> None:
        if not p.held:  # a call transforms its weights at once
            p = p._replace(types=p.types.plain)
        self.problem, self.variant = p, variant
        self.whole_ = whole(p) if KINDS[variant].stride > 1 else None
        self.passes = (self.whole_,) if self.whole_ else p.passes
        self.parts = [(i, part) for i, q in enumerate(self.passes) for part in dilation_phases(q, p.size)]
        self.covers = sum(prod(q.output_size(p.size)) for q in p.passes) == prod(p.size)
        even = len(self.parts) == 1 and not any(n % 2 for n in p.size[1:])
        self.pools = even and KINDS[variant].stride == 1 and p.outputs % p.machine.lanes == 0
        self.kind, self.first = kind_of(p, variant), self.parts[0][1]
        self.made: dict[tuple[int, int, bool, bool], _native.Winograd] = {}
        self.deep = p.passes[0].counts[0] > 1
        self.holds = self._holds()

    def _holds(self) -> bool:
        """Whether a plan holds the transformed weights."""
        p = self.problem
        if p.types.packed:
            return self.deep or p.types.beside
        return not few_tiles(p, self.kind, self._tiles(self.first, p.geometry.batch), True)

    def _tiles(self, part: Pass, batch: int) -> int:
        return tiles_of(self.kind, batch, part.output_size(self.problem.size))

    def native(self, i: int, batch: int, held: bool, pool: bool = False) -> _native.Winograd:
        """For part i of so many images, with weights that a plan holds transformed or without."""
        key = (i, batch, held, pool)
        if (known := self.made.get(key)) is not None:
            return known
        p, part = self.problem, self.parts[i][1]
        b = blocking(p, self.kind, batch, part.output_size(p.size), held)
        program = _native.Winograd(codes(p.types), p, part, b, self.kind.number, p.transposed, pool)
        if len(self.made) >= 4 * len(self.parts):
            self.made = {}
        self.made[key] = program
        return program

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        """Of every pass; those of phases, for what is not finite, behind them where one pass stands for all."""
        phases = self.problem.passes if self.whole_ else ()
        own = tuple(panels(Sums.of(self.problem), q, weight) for q in phases)
        return (*(self._pack(q, weight) for q in self.passes), *own)

    def _pack(self, q: Pass, weight: Array) -> Packed:
        p, kind = self.problem, self.kind
        packed = panels(Sums.of(p), q, weight)
        if not packed.finite or not self.holds:
            return packed
        flat = packed.panels
        if self.deep:
            flat = self._flat(q, weight).panels
        elif p.types.packed:
            flat = panels(p, q, weight).panels
        transformed = aligned_bytes(flat.size // kind.taps**2 * kind.weights**2)
        team = p.machine.threads if flat.size > 1 << 16 else 1
        _native.winograd_weights(
            p.machine.compute, kind.number, flat, transformed, p.channels * q.counts[0], p.outputs, team
        )
        return packed._replace(transformed=transformed)

    def _flat(self, q: Pass, weight: Array) -> Packed:
        """Panels of the planes of the kernel one after the other, as so many times more channels."""
        p, deep = self.problem, q.counts[0]
        first = 0 if p.transposed else 1  # the axis that is summed over
        planes = np.moveaxis(weight[:, :, q.places[0]], 2, first)
        shape = list(planes.shape[:first] + planes.shape[first + 1 :])
        shape[first] *= deep
        flat = q._replace(taps=((0,), *q.taps[1:]), places=((0,), *q.places[1:]))
        sums = Sums.of(p)._replace(channels=p.channels * deep, types=p.types.plain._replace(rounded=False))
        return panels(sums, flat, planes.reshape(shape))

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        a = Operands(x, weight, None, bias, residual, out, activation, channels_last)
        if packed is None and self.deep:
            (q,) = self.problem.passes
            flat = self._flat(q, a.logical().weight)
            special.run(self.problem, q, a, flat.finite and self.native(0, a.batch, False), self.kind.tile, flat)
            return
        if self.whole_:
            self._all_phases(self.whole_, a, packed)
            return
        if packed is None and packs_first(self.problem):
            packed = tuple(panels(self.problem, q, a.logical().weight) for q in self.problem.passes)
        for i, (number, part) in enumerate(self.parts):
            if packed is not None:
                a = a._replace(packed=packed[number])
            usable = a.packed is None or a.packed.finite
            held = a.packed is not None and a.packed.transformed is not None
            special.run(self.problem, part, a, usable and self.native(i, a.batch, held), self.kind.tile)

    def _all_phases(self, one: Pass, a: Operands, packed: tuple[Packed, ...] | None) -> None:
        """One pass for all phases."""
        p = self.problem
        held = packed[0] if packed else None
        own: tuple[Packed | None, ...] = packed[1:] if packed else (None,) * len(p.passes)
        if held is None and packs_first(Sums.of(p)._replace(passes=self.passes)):
            held = panels(Sums.of(p), one, a.logical().weight)
        usable = held is None or held.finite
        native = usable and self.native(0, a.batch, held is not None and held.transformed is not None)
        special.run(p, one, a, native, self.kind.tile, held, tuple(zip(p.passes, own, strict=True)))

    def pooled(
        self, x: Array, weight: Array, packed: tuple[Packed, ...], bias: Array | None, out: Array, activation: int
    ) -> None:
        native = self.native(0, len(x), packed[0].transformed is not None, True)
        bad = native.run(x, weight, packed[0], bias, None, out, activation, True, self.problem.machine.threads)
        if bad is not None:
            self._pooled_again(Operands(x, weight, packed[0], bias, None, out, activation, True).logical(), bad)

    def _pooled_again(self, a: Operands, bad: bytes) -> None:
        """The outputs that were never stored, in the rows of tiles that `bad` marks, image by image."""
        marks, tile = np.frombuffer(bad, np.uint8).reshape(a.batch, -1), self.kind.tile
        channels, height, width = a.out.shape[1:]
        for n in np.flatnonzero(marks.any(1)):
            one = a.images(slice(n, n + 1))
            whole = np.empty((1, channels, 2 * height, 2 * width), a.out.dtype)
            special.again(self.problem, self.first, one._replace(out=whole), marks[n].tobytes(), tile)
            fours = whole.reshape(channels, height, 2, width, 2)
            for row in np.flatnonzero(marks[n]):
                part = slice(tile * int(row) // 2, tile * (int(row) + 1) // 2)
                one.out[0, :, part] = fours[:, part].max((2, 4))

    def need(self, prepared: bool) -> int:
        p, held = self.problem, prepared and self.holds
        most = max(
            self.native(i, batch, held).scratch_bytes(held)
            for i in range(len(self.parts)) for batch in (p.geometry.batch, MANY_IMAGES)
        )  # fmt: skip
        return most * p.machine.threads

    def told(self, channels_last: bool, prepared: bool) -> Told:
        p, m, kind, held = self.problem, self.problem.machine, self.kind, prepared and self.holds
        size, batch = self.first.output_size(p.size), p.geometry.batch
        tiles, b = tiles_of(kind, batch, size), blocking(p, kind, batch, size, held)
        scratch = self.native(0, batch, held).scratch_bytes(held)
        tasks = -(-tiles // b.tiles) * pieces(p.outputs, m.width, b.panels_per_task)
        parts = [part.output_size(p.size)[1:] for _, part in self.parts]
        products = sum(kind.products(height) * kind.products(width) for height, width in parts)
        packed = sum(packed_bytes(Sums.of(p), prod(q.counts)) for q in p.passes)
        if self.whole_:  # beside them those of the phases
            packed *= 2
        packed += sum(packed_bytes(p, prod(q.counts)) for q in p.passes) // kind.taps**2 * kind.weights**2 * held
        return Told(
            tile=(kind.tile, kind.tile), block=f"{b.tiles} tiles", register_tile=(m.rows, m.width),
            source=f"transformed {kind.extent} x {kind.extent} tiles",
            workspace_bytes=scratch * _native.team_for(m.threads, tasks, scratch),
            packed_weight_bytes=packed if prepared or self.deep or packs_first(p) else 0,
            multiplications=products * batch * p.size[0] * self.first.counts[0] * p.channels * p.outputs,
            threads=m.threads, transforms_held=held and bool(p.types.packed),
        )  # fmt: skip
