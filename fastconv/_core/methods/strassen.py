"""A 1 x 1 convolution as a product of blocks in fewer multiplications (drivers/strassen.pxi, kernels/strassen.h).

Strassen, "Gaussian elimination is not optimal", Numerische Mathematik 13, 1969.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd, prod
from typing import Any, ClassVar

from ... import _native
from .. import special
from ..problem import Use
from ..record import NamedTuple
from ..types import codes
from .estimates import NEAR, READ, plain_sums
from .method import (
    MANY_IMAGES,
    Array,
    Bound,
    Direction,
    GradientProgram,
    Offer,
    Operands,
    Packed,
    Problem,
    Program,
    Told,
    Triple,
    aligned_bytes,
    bent,
    float32_alone,
    most_tiles,
    packed_bytes,
    panels,
    pieces,
    sums_too_long,
    two_axes,
)

WEIGHT_SLICE, PANEL = 8, 32  # of the second-level cache, in 128ths: a panel may be read from it again and again
READ_AGAIN = 2  # a number of the weights that a plan reads from beyond the nearer caches, run after run
FEWEST_TILES = 6  # of a register tile: products of fewer take as long, as they wait for the weights
MARGIN = 1.02  # how many times as many there must be directly
LOST = 2  # smallest numbers a term: of products, and of sums of these that are added up
MOST_EXAMPLE_PIXELS = 200  # of a generated problem's batch


class Kind(NamedTuple):
    """How often the blocks are halved, and what their sums take: multiply-adds an input and an output."""

    levels: int
    summed: int
    added: int

    @property
    def side(self) -> int:
        """Blocks of pixels, of channels and of outputs: the pixels of a tile."""
        return 1 << self.levels

    @property
    def products(self) -> int:
        """Products of blocks, in place of side ** 3."""
        return 7 if self.levels == 1 else 49


# The sums: measured on 70 layers drawn at random, 6x6 to 44x44, 64 to 2048 channels, one thread (Zen 4).
KINDS = {"once": Kind(1, 6, 15), "twice": Kind(2, 18, 30)}


class Tuned:
    """The method's numbers (`tuning`)."""

    tiles_once: int = 50  # of a block: their factors fill the second-level cache
    tiles_twice: int = 33
    part: int = 13  # tiles each time, whose products then stay in the first level


class Blocking(NamedTuple):
    """Loop sizes of the driver."""

    tiles: int  # of a block
    part: int  # of them, multiplied at a time
    reduction: int
    panels_per_task: int


@lru_cache(maxsize=256)
def blocking(p: Problem, kind: Kind, images: int, pixels: int) -> Blocking:
    """Loop sizes for `images` of so many output pixels each."""
    m, tuned = p.machine, p.machine.tuning.of("strassen", Tuned)
    tiles = max(1, images * -(-pixels // kind.side))
    panels = p.outputs // kind.side // m.width
    most = tuned.tiles_once if kind.levels == 1 else tuned.tiles_twice
    bound = most_tiles(
        p, max(most, tiles),
        lambda block: _native.strassen_scratch_bytes(m.compute, kind.levels, p.channels, block, block),
    )  # fmt: skip
    most = min(most, bound)
    # the same number of equal blocks for every thread; few tiles stay together and share out the panels
    blocks = max(round(tiles / most / m.threads) * m.threads, -(-tiles // bound) if tiles > bound else 0)
    if blocks == 0:
        blocks = -(-tiles // most) if panels >= m.threads else min(m.threads, tiles)
    block = -(-tiles // blocks)
    blocks = -(-tiles // block)
    panels_per_task = panels if blocks % m.threads == 0 else max(1, -(-panels * blocks // m.threads))
    reduction = max(32, 4 * m.tuning.share(WEIGHT_SLICE) // (m.element * m.width))
    part = block
    if kind.products * p.channels // kind.side * m.width * m.element <= m.tuning.share(PANEL):
        part = min(block, tuned.part)
    return Blocking(block, part, reduction, panels_per_task)


def cost(p: Problem, kind: Kind) -> int:
    """What it takes, as `estimates` counts: products of blocks in place of the plain sums, sums of blocks, weights."""
    pixels = sum(prod(q.output_size(p.size)) * prod(q.counts) for q in p.passes)
    weights = p.channels * p.outputs
    tiles = max(FEWEST_TILES, -(-pixels // kind.side))
    more = kind.products * weights // kind.side**2
    if p.use is Use.NETWORK:
        reading = READ * (more - weights)
    else:
        reading = READ_AGAIN * max(0, more - max(weights, NEAR // p.machine.element))
    summed = pixels * (kind.summed * p.channels + kind.added * p.outputs)
    return plain_sums(p) - pixels * weights + tiles * more + summed + reading


class Strassen:
    """The method: by itself for plans alone, those of networks among them.

    A call would have to sum the weights for one image, and pieces of an image that are computed apart would have other
    bits than the whole.
    """

    word, title, variants = "strassen", "Strassen's product", tuple(KINDS)
    halves, rounds = "Strassen's product adds them up", False
    former: ClassVar[dict[str, str]] = {"strassen_twice": "twice"}

    def why_not(self, p: Problem, variant: str | None = None) -> str | None:
        if variant is None:
            whys = [self.why_not(p, one) for one in KINDS]
            return None if None in whys else whys[0]
        side, m = KINDS[variant].side, p.machine
        if why := float32_alone(p) or two_axes(p):
            return why
        if p.gradient_of_weight:
            return "it has no weight gradient"
        if p.transposed and p.geometry.padding_mode != "zeros":
            mode = p.geometry.padding_mode
            return f"padding_mode={mode!r} repeats pixels, whose gradients are summed in slices of the channels"
        _, height, width = p.geometry.kernel_size
        if (height, width) != (1, 1):  # a phase of a larger one may have a single tap
            return f"the kernel is {height} x {width}, not 1 x 1"
        if p.groups != 1:
            return f"groups is {p.groups}, not 1"
        if p.channels == 0 or p.channels % (side * m.lanes):
            return f"{p.channels} channels are not {side} times some vectors of {m.lanes}"
        if p.outputs == 0 or p.outputs % (side * m.width):
            return f"{p.outputs} output channels are not {side} times some panels of {m.width}"
        return None

    def offer(self, p: Problem) -> Offer:
        if p.types.packed:
            held = f"it would hold sums of the weights in float32, and these are to be {p.types.packed}"
            return Offer("", False, held)
        if not p.held:
            return Offer("", False, f"it is for plans, and this is a {p.use.value}")
        if p.first:
            return Offer("", False, "channels-first arrays are multiplied as they lie, and it would copy them twice")
        if why := sums_too_long(p):
            return Offer("", False, why)
        direct = plain_sums(p)
        own, variant = min((cost(p, kind), name) for name, kind in KINDS.items() if self.why_not(p, name) is None)
        if MARGIN * own > direct:
            return Offer("", False, (
                f"too small for Strassen's product: about {own:,} multiply-adds an image with its sums for a "
                f"{p.use.value}, and {direct:,} without"
            ))  # fmt: skip
        kind = KINDS[variant]
        return Offer(variant, True, (
            f"1x1 in float32 with enough work: {kind.products} multiplications of blocks instead of {kind.side ** 3}"
        ), own / direct)  # fmt: skip

    def program(self, p: Problem, variant: str) -> Program:
        return StrassenProgram(p, KINDS[variant])

    def gradient_program(self, p: Problem, variant: str) -> GradientProgram:
        raise NotImplementedError("Strassen's product has no weight gradient")

    def grain(self, p: Problem, variant: str) -> Triple:
        """Neighbouring pixels in the order of the image, from row to row; of a gradient the whole."""
        depth, height, width = (max(1, n) for n in p.size)
        if p.transposed:
            return depth, height, width
        side = KINDS[variant].side
        return 1, side // gcd(side, width), width

    def bound(self, p: Problem, variant: str) -> Bound:
        """|y - y_ref| <= (C + 2) u * C * max|x[n]| * max|w|, C summed channels: an error follows the largest of the
        blocks. Random, one-signed, constant and badly scaled data stayed below 0.13 of it."""
        roundings = p.channels + 2
        return Bound(roundings, "image", LOST * roundings, exact=True)

    def example(self, case: Any, variant: str, direction: Direction) -> Any:
        """A 1 x 1 kernel, few pixels, and channels that every instruction set can cut in four."""
        gradient = direction is Direction.INPUT_GRADIENT
        folds = gradient and case.padding_mode != "zeros"
        if case.axes != 2 or direction is Direction.WEIGHT_GRADIENT or folds:
            return None
        size = (min(case.size[0], 7), min(case.size[1], 6))
        if not 0 < prod(size) * (1 if case.batch is None else case.batch) < MOST_EXAMPLE_PIXELS:
            return None
        channels = ((64, 256, 64)[case.index % 3], 256)  # that are summed over, and results
        return bent(
            case, kernel=(1, 1), dilation=1, groups=1, in_channels=channels[gradient],
            out_channels=channels[not gradient], size=size, dtypes=("float32", "float32"), large=False,
        )  # fmt: skip


class StrassenProgram(Program):
    """A pass whose weights are summed before it runs."""

    def __init__(self, p: Problem, kind: Kind) -> None:
        self.problem, self.kind = p, kind
        self.made: dict[int, _native.Strassen] = {}
        (self.pass_,) = p.passes
        self.covers = self.pass_.step == (1, 1, 1)

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        p, kind = self.problem, self.kind
        packed = panels(p, self.pass_, weight)
        if not packed.finite:
            return (packed,)
        transformed = aligned_bytes(packed.panels.size // kind.side**2 * kind.products)
        team = p.machine.threads if packed.panels.size > 1 << 16 else 1
        _native.strassen_weights(
            p.machine.compute, kind.levels, packed.panels, transformed, p.channels, p.outputs, team
        )
        return (packed._replace(transformed=transformed),)

    def native(self, batch: int) -> _native.Strassen:
        """For so many images."""
        if batch not in self.made:
            p = self.problem
            b = blocking(p, self.kind, batch, prod(self.pass_.output_size(p.size)))
            self.made = {batch: _native.Strassen(codes(p.types), p, self.pass_, b, self.kind.levels)}
        return self.made[batch]

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        a = Operands(x, weight, None, bias, residual, out, activation, channels_last)
        if packed is None:
            a = a.logical()
            packed = self.pack(a.weight)
        a = a._replace(packed=packed[0])
        special.run(self.problem, self.pass_, a, packed[0].transformed is not None and self.native(a.batch))

    def need(self, prepared: bool) -> int:
        most = max(self.native(batch).scratch_bytes() for batch in (MANY_IMAGES, self.problem.geometry.batch))
        return int(most * self.problem.machine.threads)

    def told(self, channels_last: bool, prepared: bool) -> Told:
        p, kind, m = self.problem, self.kind, self.problem.machine
        batch, pixels = p.geometry.batch, prod(p.size)
        b, scratch = blocking(p, kind, batch, pixels), self.native(batch).scratch_bytes()
        tiles = batch * -(-pixels // kind.side)
        tasks = -(-tiles // b.tiles) * pieces(p.outputs // kind.side, m.width, b.panels_per_task)
        packed = packed_bytes(p, 1)
        return Told(
            tile=(1, kind.side), block=f"{b.tiles} tiles", register_tile=(m.rows, m.width),
            source=f"sums of {kind.side} x {kind.side} blocks",
            workspace_bytes=scratch * _native.team_for(m.threads, tasks, scratch),
            packed_weight_bytes=packed + packed // kind.side**2 * kind.products,
            multiplications=kind.products * tiles * (p.channels // kind.side) * (p.outputs // kind.side),
            threads=m.threads,
        )  # fmt: skip


METHOD = Strassen()
