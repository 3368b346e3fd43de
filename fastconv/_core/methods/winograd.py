"""Winograd convolution in tiles: 3 x 3 taps at stride 1 and 2, 2 x 2 taps of an input gradient (drivers/winograd.pxi).

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ... import _native
from .. import special
from ..passes import spacing, triple
from ..problem import Use
from ..types import codes
from .method import (
    LONG_SUM,
    WORKSPACE_BYTES,
    Array,
    Bound,
    Direction,
    From,
    GradientProgram,
    Offer,
    Operands,
    Packed,
    Pass,
    Problem,
    Program,
    Told,
    Triple,
    aligned_bytes,
    float32_alone,
    packed_bytes,
    packs_first,
    panels,
    pieces,
    sums_too_long,
    two_axes,
)

PARTIAL_SUMS_BYTES = 8 << 20  # all partial sums of a weight gradient
GRADIENT_TILES = 24  # of the weight gradient, transformed together
# Of the second-level cache, in 128ths: sums of a block of tiles, transformed weights of a slice, transformed input.
WEIGHT_SLICE, SUMS, SLICE, INPUT = 8, 81, 72, 64
# What the transforms may lose where operands are near the smallest numbers: so many of them a term, and as if each
# operand were so much larger. The largest tiles lose up to 850 a weight and 240 an input, 1,300 and 350 in the weight
# gradient, by the rows of their matrices; (C + 32) u times this is more than 9 times that.
LOST, ADDED = 8, 2.0**-120
MOST_EXAMPLE_VALUES = 100_000  # channels x outputs x pixels of a generated problem, to keep it quick


class Kind(NamedTuple):
    """A kind (fc_winograd in src/fastconv.h): what a tile has along each axis."""

    number: int  # fc_winograd_kind
    tile: int  # outputs
    stride: int
    taps: int
    elements: int  # products
    weights: int  # different transformed weights
    roundings: int  # that the transforms add to those of the sum

    @property
    def extent(self) -> int:
        """Inputs along an axis."""
        return (self.tile - 1) * self.stride + self.taps


KINDS = {
    "4x4": Kind(2, 4, 1, 3, 6, 6, 32),
    "2x2": Kind(1, 2, 1, 3, 4, 4, 4),
    "2x2 at stride 2": Kind(0, 2, 2, 3, 5, 4, 4),
    "4x4 at stride 2": Kind(4, 4, 2, 3, 9, 6, 32),
}
TWO_TAPS = Kind(3, 2, 1, 2, 3, 3, 4)  # "2x2 at stride 2" of an input gradient, in every phase
LARGE, SMALL, STRIDED, STRIDED_LARGE = KINDS


def kind_of(variant: str, q: Pass) -> Kind:
    """The kind that computes a pass."""
    return TWO_TAPS if q.counts[1] == 2 else KINDS[variant]


class Tuned(NamedTuple):
    """The method's numbers (`tuning`): all are of one image, so that a batch split changes nothing."""

    channels: int = 6  # summed: fewer do not outweigh the transform back
    outputs: int = 3
    macs: int = 1 << 20
    size_held: int = 7  # outputs a side where a plan holds the transformed weights
    size: int = 12  # a single call transforms its weights for one image;
    size_wide: int = 7  # with so many channels that arithmetic outweighs all else, also from here
    wide: int = 128
    channels_dilated: int = 64  # of a call, which transforms the weights anew for every phase
    gradient: From = From(32, 4, 1 << 20)  # of the weight, whose sums are transformed once; a phase where dilated
    tiles_gradient: int = 9  # of the whole batch
    small: From = From(64, 4, 1 << 19)  # tiles of 2 x 2 outputs on maps that waste those of 4 x 4: a plan
    channels_small: int = 32  # likewise a single call
    channels_smallest: int = 128  # and one below `size_held`
    strided: From = From(64, 7, 16 << 20)  # 3 x 3 taps at stride 2
    strided_phases: From = From(32, 4, 4 << 20)  # 2 x 2 in every phase
    size_strided_large: int = 24  # outputs a side from which on tiles of 4 x 4 outputs waste little of the map
    batch_channels: int = 32  # of a training step, which transforms the weights once for the batch
    batch_tiles: int = 64  # of 4 x 4 outputs, over the batch
    few_tiles: int = 4  # of a batch: more make up for storing the transformed weights
    held_bytes: int = 16 << 20  # and for such a batch a plan holds no more of them than a cache does


def tuned(p: Problem) -> Tuned:
    """The numbers of the machine."""
    own = p.machine.tuning.of("winograd", Tuned())
    return own._replace(
        gradient=From(*own.gradient), small=From(*own.small), strided=From(*own.strided),
        strided_phases=From(*own.strided_phases),
    )  # fmt: skip


class Winograd:
    """The method."""

    word, title, variants = "winograd", "Winograd", tuple(KINDS)
    former: ClassVar[dict[str, str]] = {
        "winograd_2x2": SMALL, "winograd_phases": STRIDED, "winograd_phases_4x4": STRIDED_LARGE,
    }  # fmt: skip

    # ---- whether it can

    def why_not(self, p: Problem, variant: str | None = None) -> str | None:
        """A dilated pass is as many plain ones as the dilation has phases, each on every d-th pixel; padding that
        repeats pixels mixes them."""
        if variant is None:
            why = self.why_not(p, LARGE)
            return why and self.why_not(p, STRIDED) and why
        q, wanted = p.passes[0], KINDS[variant].stride
        gradient = q.step != (1, 1, 1)
        stride = (q.step if gradient else q.stride)[1:]
        if why := float32_alone(p) or two_axes(p):
            return why
        if wanted == 2 and p.gradient_of_weight:
            return "it has no weight gradient"
        if gradient and variant == STRIDED_LARGE:
            return "an input gradient has tiles of 2 x 2 outputs alone"
        if stride != (wanted, wanted):
            return f"the stride is {stride}, not {(wanted, wanted)}"
        if gradient and any(one.counts[1:] != (2, 2) for one in p.passes):
            return "not every phase of the kernel has 2 x 2 taps, as one of 4 x 4 has"
        if not gradient and q.counts[1:] != (3, 3):
            return f"the kernel is {q.counts[1]} x {q.counts[2]}, not 3 x 3"
        apart = spacing(q)[1:]
        if apart != (1, 1) and (wanted == 2 or (not p.gradient_of_weight and p.geometry.padding_mode != "zeros")):
            return f"the kernel is dilated by {apart}, which it does not compute for " + (
                f"padding_mode={p.geometry.padding_mode!r}" if wanted == 1 else "a stride of 2"
            )
        if p.groups != 1:
            return f"groups is {p.groups}, not 1"
        if p.channels == 0 or p.outputs == 0:
            return "there are no channels"
        return None

    # ---- whether it pays

    def offer(self, p: Problem) -> Offer:
        if why := sums_too_long(p):
            return Offer(LARGE, False, why)
        if self.why_not(p, LARGE) is not None:
            return self._strided(p)
        return self._batch(p) if p.use is Use.BATCH else self._plain(p)

    def _plain(self, p: Problem) -> Offer:
        t, apart = tuned(p), spacing(p.passes[0])[1:]
        size = tuple(-(-n // d) for n, d in zip(p.size[1:], apart, strict=True))
        fewest, dilated = min(p.channels, p.outputs), apart != (1, 1)
        least, least_channels, least_macs = t.size_held, t.channels, t.macs
        if p.gradient_of_weight:
            least_channels, least, least_macs = t.gradient
        elif p.use is Use.ONCE:
            least = t.size_wide if fewest >= t.wide and not dilated else t.size
            least_channels = t.channels_dilated if dilated else least_channels
        macs = 9 * p.channels * p.outputs * prod(size)
        few = p.channels < least_channels or p.outputs < min(least_channels, t.outputs)
        if p.gradient_of_weight or dilated:
            few = fewest < least_channels
        if p.gradient_of_weight:  # one sum over all images and phases
            planes = p.geometry.batch * prod(apart)
            few = few or planes * -(-size[0] // 4) * -(-size[1] // 4) < t.tiles_gradient
            macs *= planes
        if not (few or min(size) < least or macs < least_macs):
            return Offer(LARGE, True, (
                "3x3 at stride 1 in float32 with enough work: 36 multiplications for 16 outputs instead of 144"
            ))  # fmt: skip
        if not p.gradient_of_weight and not dilated and self._earns_small(p, fewest, min(size), macs):
            return Offer(SMALL, True, (
                "3x3 at stride 1 in float32, a small map: 16 multiplications for 4 outputs, not 36"
            ))  # fmt: skip
        purpose = p.direction.value if p.gradient_of_weight else p.use.value
        return Offer(LARGE, False, (
            f"too small for Winograd, which pays from {least_channels} channels, {least} x {least} outputs and "
            f"{least_macs:,} multiply-adds an image on for a {purpose}{', a phase of the dilation' if dilated else ''}"
        ))  # fmt: skip

    def _earns_small(self, p: Problem, fewest: int, size: int, macs: int) -> bool:
        """Whether a map too small for tiles of 4 x 4 outputs, `size` a side, earns the transforms of 2 x 2."""
        t = tuned(p)
        least = t.channels_small if size >= t.size_held else t.channels_smallest
        if p.held:
            least = t.small.channels
        return fewest >= least and size >= t.small.size and macs >= t.small.macs

    def _strided(self, p: Problem) -> Offer:
        """Of 3 x 3 taps, or of 2 x 2 in every phase of an input gradient."""
        q, t = p.passes[0], tuned(p)
        own, taps = q.output_size(p.size)[1:], q.counts[1]
        pays = t.strided if taps == 3 else t.strided_phases
        if (
            p.use is Use.BATCH
            or min(p.channels, p.outputs) < pays.channels
            or min(own) < pays.size
            or p.channels * p.outputs * prod(own) * prod(q.counts) < pays.macs
        ):
            return Offer(STRIDED, False, (
                f"too small for Winograd at stride 2, which pays from {pays.channels} channels, {pays.size} x "
                f"{pays.size} outputs and {pays.macs:,} multiply-adds an image on"
                f"{'' if taps == 3 else ', in every phase'}"
            ))  # fmt: skip
        if taps == 2:
            return Offer(STRIDED, True, (
                "4x4 at stride 2 in float32: 9 multiplications for 4 outputs of a phase instead of 16"
            ))  # fmt: skip
        if min(own) >= t.size_strided_large:
            return Offer(STRIDED_LARGE, True, (
                "3x3 at stride 2 in float32: 81 multiplications for 16 outputs instead of 144"
            ))  # fmt: skip
        return Offer(STRIDED, True, "3x3 at stride 2 in float32: 25 multiplications for 4 outputs instead of 36")

    def _batch(self, p: Problem) -> Offer:
        """A step packs the weights once for the whole batch, so that their transform pays earlier than in a call that
        must earn it in one image."""
        t, (_, height, width) = tuned(p), p.size
        tiles = p.geometry.batch * -(-height // 4) * -(-width // 4)
        fewest = min(p.channels, p.outputs)
        pays = fewest >= t.batch_channels and tiles >= t.batch_tiles and spacing(p.passes[0]) == (1, 1, 1)
        return Offer(LARGE, pays, (
            f"3x3 at stride 1 in float32: a batch of {tiles} tiles and {fewest} channels, where it pays from "
            f"{t.batch_tiles} and {t.batch_channels} on"
        ))  # fmt: skip

    # ---- what it does

    def program(self, p: Problem, variant: str) -> Program:
        return WinogradProgram(p, variant)

    def gradient_program(self, p: Problem, variant: str) -> GradientProgram:
        return WinogradGradient(p, KINDS[variant])

    def grain(self, p: Problem, variant: str) -> Triple:
        """Tiles lie within a phase of the dilation and, of a gradient, of the stride."""
        g, kind = p.geometry, KINDS[variant]
        tile = TWO_TAPS.tile if p.transposed and kind.stride > 1 else kind.tile
        steps = [d * (s if p.transposed else 1) for d, s in zip(g.dilation, g.stride, strict=True)]
        return 1, tile * steps[1], tile * steps[2]

    def bound(self, p: Problem, variant: str) -> Bound:
        """|y - y_ref| <= (C + terms) u * sum over c of max|x[n, c]| * sum|w[o, c]|, C summed channels (pixels for the
        weight gradient), u the unit roundoff, the maximum over the plane: a tile's error follows the largest of its
        pixels. Random, one-signed and constant data stayed below 0.8 of (C + 16) u, planes of very different scales and
        few channels in 8 of 100,000 problems above it, up to 1.48 times (reliability board)."""
        g = p.geometry
        summed = min(g.batch * prod(g.output_size), LONG_SUM) if p.gradient_of_weight else p.channels
        roundings = summed + KINDS[variant].roundings
        return Bound(roundings, "plane", LOST * roundings, ADDED)

    def example(self, case: Any, variant: str, direction: Direction) -> Any:
        """A kernel of 3 x 3, at stride 1 a dilated one now and then; an input gradient at stride 2 has 4 x 4 taps. None
        where nothing or too much would be computed."""
        gradient, stride = direction is Direction.INPUT_GRADIENT, KINDS[variant].stride
        side, dilation = 4 if gradient and stride == 2 else 3, 1
        if stride == 2 and (direction is Direction.WEIGHT_GRADIENT or (gradient and variant == STRIDED_LARGE)):
            return None
        if stride == 1 and case.padding_mode == "zeros" and case.index % 4 == 1:
            dilation = case.dilation
        most = 2 * (dilation if isinstance(dilation, int) else max(dilation))
        size = tuple(max(n, side + most + 2) for n in case.size)
        if not 0 < case.in_channels * case.out_channels * prod(size) < MOST_EXAMPLE_VALUES:
            return None
        return replace(
            case, kernel=(side, side), stride=stride, dilation=dilation, groups=1, size=size,
            dtypes=("float32", "float32"),
        )  # fmt: skip


# ---- forward passes and input gradients ----------------------------------------------------------------------------


class Blocking(NamedTuple):
    """Loop sizes of the driver."""

    few: bool  # weights are transformed in registers, whether a plan holds their transform or not
    tiles: int  # of a block
    reduction: int
    slice: int  # channels whose weights are transformed at a time, where no plan holds them
    panels_per_task: int
    scratch_bytes: int  # of one thread


def tiles_of(kind: Kind, shape: Triple) -> int:
    """Tiles of an output of `shape` (batch, height, width)."""
    return shape[0] * -(-shape[1] // kind.tile) * -(-shape[2] // kind.tile)


def few_tiles(p: Problem, kind: Kind, tiles: int, prepared: bool) -> bool:
    """Whether so few tiles that transforming the weights in registers costs less than reading their transform.

    The bits are the same either way.
    """
    m, t = p.machine, tuned(p)
    held = prepared and kind.weights**2 * p.channels * p.outputs * m.element <= t.held_bytes
    return kind == KINDS[LARGE] and m.vectors == 4 and tiles <= t.few_tiles and not held


@lru_cache(maxsize=256)
def blocking(p: Problem, kind: Kind, shape: Triple, transformed: bool) -> Blocking:
    """Loop sizes for an output of `shape` (batch, height, width).

    With `transformed` weights at hand, a block's transformed input stays in the second-level cache. Without, its sums
    and a slice of transformed weights do, and a block has as many tiles as that allows, to use the slice often.
    """
    m, channels, outputs = p.machine, p.channels, p.outputs
    element, lanes, rows, width, threads = m.element, m.lanes, m.rows, m.width, m.threads
    tile, extent, elements, taps = kind.tile, kind.extent, kind.elements**2, kind.taps**2
    weights = kind.weights**2
    tiles = max(1, tiles_of(kind, shape))  # an empty batch has loop sizes too
    few = few_tiles(p, kind, tiles, transformed)
    leading = -(-channels // lanes) * lanes + lanes
    panels = -(-outputs // width)
    budget = WORKSPACE_BYTES // threads
    part = max(1, min(channels, min(m.tuning.share(SLICE), budget // 3) // (weights * element * width)))
    if few:
        leading, part = -(-channels // 64) * 64, 64  # FC_WINOGRAD_CHANNELS
    fixed = 512 + element * extent * extent * min(64, leading)
    if few:
        most = tiles
        fixed += element * taps * part * width
    elif transformed:
        most = max(4 * rows, min(16 * rows, m.tuning.share(INPUT) // (elements * element * leading)))
    else:
        most = max(rows, m.tuning.share(SUMS) // (elements * element * width))
        fixed += element * ((taps + weights) * part * width + weights * lanes)
    one = element * (extent * tile * kind.stride * min(64, leading) + tile * tile * width)  # as packed and stored
    tile_bytes = element * elements * (leading + width) + one + 64
    absent = element * elements * (leading + width) if few else 0  # of a tile that makes up four
    bound = max(1, (budget - fixed - 3 * absent) // tile_bytes)
    most = min(most, bound)
    # the same number of equal blocks for every thread, near that size; few tiles stay together and share out the panels
    blocks = max(round(tiles / most / threads) * threads, -(-tiles // bound) if tiles > bound else 0)
    if blocks == 0:
        together = panels >= 2 * threads or (panels % threads == 0 and tiles <= 4 * rows)
        blocks = -(-tiles // most) if together else min(threads, -(-tiles // rows))
    block = -(-tiles // blocks)
    # every task transforms its tiles anew: no more of them than threads
    panels_per_task = panels if blocks % threads == 0 else max(1, -(-panels * blocks // threads))
    run = min(block, -(-shape[2] // tile))  # tiles of one row are packed, and stored, together
    scratch = fixed + block * tile_bytes - (block - run) * one + -block % 4 * absent
    reduction = max(32, m.tuning.share(WEIGHT_SLICE) // (element * width))
    return Blocking(few, block, reduction, part, panels_per_task, scratch)


class WinogradProgram(Program):
    """Passes whose tiles are transformed; weights that are not finite go to the direct program."""

    def __init__(self, p: Problem, variant: str) -> None:
        self.problem, self.variant = p, variant
        self.plain = len(p.passes) == 1 and p.passes[0].step == spacing(p.passes[0]) == (1, 1, 1)
        self.covers = sum(prod(q.output_size(p.size)) for q in p.passes) == prod(p.size)
        even = not any(n % 2 for n in p.size[1:])
        self.pools = self.plain and KINDS[variant].stride == 1 and even and p.outputs % p.machine.lanes == 0

    @property
    def phase_size(self) -> Triple:
        """(batch, rows, columns) of the outputs whose taps meet the pixels of one phase of the dilation."""
        g = self.problem.geometry
        return g.batch, -(-self.problem.size[1] // g.dilation[1]), -(-self.problem.size[2] // g.dilation[2])

    @property
    def holds(self) -> bool:
        """Whether a plan holds transformed weights."""
        p = self.problem
        kind = kind_of(self.variant, p.passes[0])
        return not few_tiles(p, kind, tiles_of(kind, self.phase_size), True)

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        return tuple(self._pack(q, weight) for q in self.problem.passes)

    def _pack(self, q: Pass, weight: Array) -> Packed:
        p, kind = self.problem, kind_of(self.variant, q)
        packed = panels(p, q, weight)
        if not packed.finite or not self.holds:
            return packed
        transformed = aligned_bytes(packed.panels.size // kind.taps**2 * kind.weights**2)
        team = p.machine.threads if packed.panels.size > 1 << 16 else 1
        _native.winograd_weights(
            p.machine.compute, kind.number, packed.panels, transformed, p.channels, p.outputs, team
        )
        return packed._replace(transformed=transformed)

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        self._run(Operands(x, weight, None, bias, residual, out, activation, channels_last), packed, False)

    def pooled(
        self, x: Array, weight: Array, packed: tuple[Packed, ...], bias: Array | None, out: Array, activation: int
    ) -> None:
        self._run(Operands(x, weight, None, bias, None, out, activation, True), packed, True)

    def _run(self, a: Operands, packed: tuple[Packed, ...] | None, pool: bool) -> None:
        if not self.plain:
            a = a.logical()
        for i, q in enumerate(self.problem.passes):
            own = a if q.step == (1, 1, 1) else a.phase(q.phase, q.step)
            if packed is None and packs_first(self.problem):
                own = own._replace(packed=panels(self.problem, q, a.logical().weight))
            elif packed is not None:
                own = own._replace(packed=packed[i])
            if own.packed is None or own.packed.finite:
                self._pass(q, own, pool)
            else:
                special.again(self.problem, q, own, None, own.size[1])

    def _pass(self, q: Pass, a: Operands, pool: bool) -> None:
        """A pass into its own outputs, a phase of the dilation after the other."""
        _, dy, dx = spacing(q)
        if (dy, dx) == (1, 1):
            self._phase(q, a, pool)
            return
        _, height, width = a.size
        for py, px in product(range(min(dy, height)), range(min(dx, width))):
            y0, x0 = py + q.taps[1][0], px + q.taps[2][0]  # the first tap of the phase's first output
            part = q._replace(
                taps=triple([q.taps[0], tuple(y0 // dy + i for i in range(3)), tuple(x0 // dx + i for i in range(3))])
            )
            own = a.x[..., y0 % dy :: dy, x0 % dx :: dx]
            self._phase(part, a.phase((0, py, px), (1, dy, dx))._replace(x=own), False)

    def _phase(self, q: Pass, a: Operands, pool: bool) -> None:
        """A pass whose taps lie side by side."""
        p, kind, numbers = self.problem, kind_of(self.variant, q), codes(self.problem.types)
        _, height, width = a.size
        held = a.packed is not None and a.packed.transformed is not None
        b = blocking(p, kind, (a.batch, height << pool, width << pool), held)
        panels, transformed = (None, None) if a.packed is None else (a.packed.panels, a.packed.transformed)
        bad = _native.winograd(
            numbers.compute, kind.number, a.x, numbers.input, a.weight, numbers.weight, panels, transformed,
            p.transposed, *q.places[1:], a.bias, a.out, numbers.result, a.residual, a.activation, q.taps[1][0],
            q.taps[2][0], p.mode, pool, b.few, b.tiles, b.reduction, b.slice, b.panels_per_task, a.channels_last,
            p.machine.threads,
        )  # fmt: skip
        if bad is not None and pool:
            self._pooled_again(q, a, bad, kind.tile)
        elif bad is not None:
            special.again(p, q, a, bad, kind.tile)

    def _pooled_again(self, q: Pass, a: Operands, bad: bytes, tile: int) -> None:
        """The outputs that were never stored, in the rows of tiles that `bad` marks, image by image."""
        a = a.logical()
        _, channels, height, width = a.out.shape
        marks = np.frombuffer(bad, np.uint8).reshape(a.batch, -1)
        for n in np.flatnonzero(marks.any(1)):
            one = a.images(slice(n, n + 1))
            whole = np.empty((1, channels, 2 * height, 2 * width), a.out.dtype)
            special.again(self.problem, q, one._replace(out=whole), marks[n].tobytes(), tile)
            fours = whole.reshape(channels, height, 2, width, 2)
            for row in np.flatnonzero(marks[n]):
                part = slice(tile * int(row) // 2, tile * (int(row) + 1) // 2)
                one.out[0, :, part] = fours[:, part].max((2, 4))

    def told(self, channels_last: bool, prepared: bool) -> Told:
        p, m, g = self.problem, self.problem.machine, self.problem.geometry
        kind, held = kind_of(self.variant, p.passes[0]), prepared and self.holds
        phases = len(p.passes) * prod(map(min, g.dilation, p.size))  # each on every d-th pixel
        b, tiles = blocking(p, kind, self.phase_size, held), tiles_of(kind, self.phase_size)
        tasks = -(-tiles // b.tiles) * pieces(p.outputs, m.width, b.panels_per_task)
        packed = sum(packed_bytes(p, prod(q.counts)) for q in p.passes)
        return Told(
            tile=(kind.tile, kind.tile), block=f"{b.tiles} tiles", register_tile=(m.rows, m.width),
            source=f"transformed {kind.extent} x {kind.extent} tiles",
            workspace_bytes=b.scratch_bytes * _native.team_for(m.threads, tasks, b.scratch_bytes),
            packed_weight_bytes=packed // kind.taps**2 * (kind.taps**2 + kind.weights**2 * held) if prepared or
            packs_first(p) else 0,
            multiplications=kind.elements**2 * phases * tiles * p.channels * p.outputs, threads=m.threads,
        )  # fmt: skip


# ---- the weight gradient -------------------------------------------------------------------------------------------


class GradientBlocking(NamedTuple):
    """Loop sizes of the weight gradient; `parts` cuts its sum, by shape alone."""

    channels: int
    tiles: int  # transformed together
    parts: int


@lru_cache(maxsize=256)
def gradient_blocking(p: Problem, kind: Kind) -> GradientBlocking:
    """Sums of 36 x 64 channels x one panel (590 KB in AVX-512) and 24 transformed tiles share the second level."""
    m, g = p.machine, p.geometry
    channels = min(64, g.in_channels)
    blocks = -(-g.in_channels // channels) * -(-g.out_channels // m.width)
    tiles = g.batch
    for size, dilation in zip(g.output_size, g.dilation, strict=True):  # of every phase
        tiles *= min(size, dilation) * -(-size // (kind.tile * dilation))
    block_bytes = kind.elements**2 * channels * m.width * m.element
    parts = min(tiles // 48, -(-16 // blocks), PARTIAL_SUMS_BYTES // (blocks * block_bytes))
    return GradientBlocking(channels, GRADIENT_TILES, max(1, parts))


class WinogradGradient:
    """The weight gradient F(3 x 3, m x m)."""

    def __init__(self, p: Problem, kind: Kind) -> None:
        self.problem, self.kind = p, kind

    def run(self, x: Array, dy: Array, out: Array) -> None:
        p, g, numbers = self.problem, self.problem.geometry, codes(self.problem.types)
        b = gradient_blocking(p, self.kind)
        _native.winograd_weight_gradient(
            numbers.compute, self.kind.number, x, numbers.input, dy, numbers.weight, out, numbers.result,
            g.padding[1][0], g.padding[2][0], *g.dilation[1:], p.mode, b.channels, b.tiles, b.parts, p.machine.threads,
        )  # fmt: skip
        special.gradient_again(p, x, dy, out)


METHOD = Winograd()
