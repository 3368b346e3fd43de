"""What every method of convolving answers for itself, and what several share.

A method is a module with an object that keeps this protocol; `METHODS` lists them in the order in which they are asked.
Nobody outside a method's module knows its name or its numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any, Protocol

import numpy as np

from ... import _native
from ..operands import Array, Operands, Packed, aligned_bytes
from ..passes import Edges, Pass, Triple, terms, walked
from ..problem import Direction, Machine, Problem
from ..record import NamedTuple
from ..types import Types, codes, product_compute

PANEL_BYTES = 5 << 19  # weights of one panel that a thread packs for itself in a single call
MANY_IMAGES = 64  # a batch that keeps all threads busy
LONG_SUM = _native.LONG_SUM  # terms from which on sums are made in blocks, added up in twice the precision


class Before(NamedTuple):
    """What is done to the input of a convolution: x * scale + shift of every channel, each product rounded for itself,
    and not below 0 with `relu`."""

    scale: Array  # a vector, as the next
    shift: Array | None
    relu: bool


class Offer(NamedTuple):
    """What a method would do, whether that pays, and why (why not): a sentence."""

    variant: str  # a method's own affair; '' where it has but one
    pays: bool
    reason: str
    share: float | None = None  # of the time of plain sums, as estimated: of two that say so the faster is taken


class Bound(NamedTuple):
    """The most that a result may differ from the exact one: `roundings` x unit roundoff x a norm of the operands, and
    `lost` x the smallest number beside it."""

    roundings: int
    norm: str  # 'sum', 'plane' or 'image': see `testing.bounds`
    lost: int  # what products near the smallest numbers may lose
    added: float = 0.0  # to the size of every operand, for what transforms lose there
    exact: bool = False  # integers whose sums can be represented come out exactly


class Told(NamedTuple):
    """What a program says of a run that it would make: the part of `ConvExplanation` that depends on the method."""

    tile: tuple[int, ...]
    block: str
    register_tile: tuple[int, int]
    source: str
    workspace_bytes: int
    packed_weight_bytes: int
    multiplications: int
    threads: int
    remark: str = ""  # behind the reason of the choice
    transforms_held: bool = False  # beside weights in 16 bits, their transform in float32


class Program(ABC):
    """A convolution with every number resolved but the arrays: run many times, by several threads at once."""

    covers = True  # every output is written
    whole = False  # pieces of the image that are computed apart have other bits
    natively = True  # with packed weights, native works alone touch the arrays
    pools = False  # `pooled` may be called for channels-last arrays
    scales = False  # `scaled` may be called for channels-last arrays whose channels lie side by side
    adds_in_place = False  # with packed weights, the residual of contiguous arrays may be `out` itself

    @abstractmethod
    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        """Compute `out`; of a `packed` weight the array gives the shape alone."""

    @abstractmethod
    def pack(self, weight: Array) -> tuple[Packed, ...]:
        """The weights (logical axis order) packed for many runs, a part for every pass."""

    @abstractmethod
    def told(self, channels_last: bool, prepared: bool) -> Told:
        """What `explain` shows, for contiguous arrays in such a layout; `prepared`: with the weights of a plan."""

    @abstractmethod
    def need(self, prepared: bool) -> int:
        """The most scratch memory of a run of any batch, in bytes."""

    def pooled(
        self, x: Array, weight: Array, packed: tuple[Packed, ...], bias: Array | None, out: Array, activation: int
    ) -> None:
        """The largest of every 2 x 2 outputs, which then are never stored."""
        raise NotImplementedError


    def scaled(self, a: Operands, before: Before) -> None:
        """The convolution of an input that is scaled on its way, and never stored so."""
        raise NotImplementedError


class GradientProgram(Protocol):
    """The gradient of a weight with every number resolved but the arrays."""

    def run(self, x: Array, dy: Array, out: Array) -> None:
        """`out` (O, I/groups, *kernel) from arrays in the logical axis order."""
        ...


class Method(Protocol):
    """A way to convolve."""

    @property
    def word(self) -> str:
        """What a caller asks for by `algorithm=`; several methods may share a word."""
        ...

    @property
    def title(self) -> str:
        """How sentences name it."""
        ...

    @property
    def variants(self) -> tuple[str, ...]:
        """What may follow the word and a colon; the first that applies is taken for the word alone."""
        ...

    @property
    def halves(self) -> str:
        """Why it holds the weights of plans in the type of the sums, not in 16 bits; '' where it does not."""
        ...

    @property
    def rounds(self) -> bool:
        """Whether it can round its operands to bfloat16."""
        ...

    @property
    def former(self) -> dict[str, str]:
        """What callers said for a variant when each had a word of its own."""
        ...

    def why_not(self, p: Problem, variant: str | None = None) -> str | None:
        """Why it (a variant) cannot compute a problem, as a sentence's end; None if it can."""
        ...

    def offer(self, p: Problem) -> Offer:
        """What it would do by itself for a problem that it can compute."""
        ...

    def program(self, p: Problem, variant: str) -> Program:
        """For the forward pass or the input gradient."""
        ...

    def gradient_program(self, p: Problem, variant: str) -> GradientProgram:
        """For the gradient of the weight."""
        ...

    def grain(self, p: Problem, variant: str) -> Triple:
        """Outputs along each axis that are made together: at multiples of these the sums begin anew.

        A block of outputs that begins and ends at such multiples (or where the outputs end), and is given all the
        inputs that the whole has under the windows of its last grain, has the bits of the whole.
        """
        ...

    def bound(self, p: Problem, variant: str) -> Bound:
        """How much its results may err."""
        ...

    def example(self, case: Any, variant: str, direction: Direction) -> Any:
        """A generated problem (`testing.problems.ConvCase`) bent until the variant applies in that direction; None if
        it cannot be."""
        ...


class Sums(NamedTuple):
    """What direct kernels compute: the passes of a problem, or others that lay its arrays otherwise."""

    passes: tuple[Pass, ...]
    transposed: bool  # whether the outputs are the second axis of the weights
    channels: int  # of one group
    outputs: int
    groups: int
    size: Triple  # of the output
    input_size: Triple
    mode: int
    images: int
    held: bool
    types: Types
    machine: Machine
    products: int | None = None  # fc_compute of the products, where it does not follow from the types
    terms: int | None = None  # of a sum, where its pass has more, which are zeros

    @classmethod
    def of(cls, p: Problem) -> Sums:
        """Those of a problem."""
        return cls(
            () if p.empty else p.passes, p.transposed, p.channels, p.outputs, p.groups, p.size, p.input_size, p.mode,
            p.geometry.batch, p.held, p.types, p.machine,
        )  # fmt: skip

    @property
    def capped(self) -> bool:
        """Whether the caller allows less scratch than is usual."""
        return self.machine.capped

    @property
    def compute(self) -> int:
        """fc_compute of the products."""
        return product_compute(self.types) if self.products is None else self.products

    @property
    def operands(self) -> tuple[int, int, int]:
        """Bytes of packed inputs and weights, and how many steps of the reduction lie side by side."""
        return _native.operands_of(self.compute)

    @property
    def read_in_place(self) -> bool:
        """Whether a channels-last input may be: it is of the type of the products, in whole groups of their steps."""
        own = _native.COMPUTES.get(self.types.input.name) == self.compute
        return own and self.channels % self.operands[2] == 0

    @property
    def covers(self) -> bool:
        """Whether every output belongs to a pass."""
        return sum(prod(q.output_size(self.size)) for q in self.passes) == prod(self.size)


class From(NamedTuple):
    """Work of an image from which on something pays."""

    channels: int
    size: int  # outputs a side
    macs: int


# ---- shared --------------------------------------------------------------------------------------------------------


def bent(case: Any, **changes: Any) -> Any:
    """A generated problem with other numbers, for `Method.example`."""
    from dataclasses import replace  # importing it takes longer than all of this package

    return replace(case, **changes)


def split(total: int, most: int) -> int:
    """The size of equal pieces of `total`, none above `most`."""
    most = max(1, most)
    return -(-total // -(-total // most)) if total else 1


def pieces(outputs: int, width: int, per_task: int) -> int:
    """Tasks that share out the panels (chunks) of so many outputs."""
    panels = -(-outputs // width)
    return -(-panels // per_task)


def packed_bytes(p: Problem | Sums, taps: int) -> int:
    """Bytes of all weights in panels, for so many taps."""
    return _native.packed_bytes(p.compute, p.groups, taps, p.channels, p.outputs)


def panel_bytes(p: Problem | Sums, q: Pass) -> int:
    """Bytes of the widest panel of a pass."""
    outputs = min(p.machine.width, p.outputs)
    return _native.packed_bytes(p.compute, 1, prod(q.counts), p.channels, outputs)


def most_panel_bytes(p: Problem | Sums) -> int:
    """Up to here a thread packs a panel for itself: beside it, it holds a region and sums."""
    return min(PANEL_BYTES, p.machine.share // 4 if p.machine.capped else p.machine.share * 2 // 3)


@lru_cache(maxsize=256)
def packs_first(p: Problem | Sums) -> bool:
    """Whether a panel is so large that weights are packed before they are used, even for one run."""
    return any(panel_bytes(p, q) > most_panel_bytes(p) for q in p.passes)


def most_tiles(p: Problem, most: int, scratch: Callable[[int], int]) -> int:
    """The largest block, up to `most` tiles and at least one, whose scratch in every thread is within the workspace."""
    low, high, budget = 1, max(1, most), p.machine.share
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if scratch(middle) <= budget else (low, middle - 1)
    return low


def panels(p: Problem | Sums, q: Pass, weight: Array, into: Array | None = None) -> Packed:
    """The weights (logical axis order) of one pass in panels, in memory that is given or new."""
    packed = aligned_bytes(packed_bytes(p, prod(q.counts))) if into is None else into
    team = p.machine.threads if packed.size > 1 << 16 else 1
    finite = _native.pack_weights(
        p.compute, weight, codes(p.types).weight, packed, p.groups, p.transposed, q.places, team
    )
    return Packed(packed, finite)


def products(s: Sums, tiles: Sequence[tuple[Edges, Edges, Edges]]) -> int:
    """Multiply-adds of the direct kernels: taps that meet padding alone are left out, of a whole tile of each pass."""
    total = 0
    for q, edges in zip(s.passes, tiles, strict=True):
        taps = prod(q.output_size(s.size)) * prod(q.counts) if s.mode else walked(q, s.input_size, edges)
        total += s.images * taps * s.groups * s.channels * s.outputs
    return total


def float32_alone(p: Problem) -> str | None:
    """The refusal of a fast method for another element type."""
    for dtype in (p.types.input, p.types.result):
        if dtype != np.float32:
            return f"the element type is {dtype}, not float32"
    return None


def two_axes(p: Problem) -> str | None:
    """The refusal of a method for images alone."""
    g = p.geometry
    if (g.input_size[0], g.kernel_size[0], g.output_size[0], g.stride[0], g.padding[0]) != (1, 1, 1, 1, (0, 0)):
        return "it has a depth, and the method is for images"
    return None


def bound_of_terms(count: int) -> Bound:
    """Of a plain sum: terms beyond `LONG_SUM` are made in blocks, added up in twice the precision, and err no more."""
    return Bound(min(count, LONG_SUM) + 2, "sum", count + 2, exact=True)


def sum_bound(p: Problem) -> Bound:
    """Of the sums of a problem, term by term."""
    g = p.geometry
    if p.gradient_of_weight:
        return bound_of_terms(g.batch * prod(g.output_size))
    return bound_of_terms(max((terms(q, p.channels) for q in p.passes), default=0))


def sums_too_long(p: Problem) -> str | None:
    """Why a fast method is not taken by itself: the blocks of long sums."""
    if p.channels * p.passes[0].counts[0] > LONG_SUM and not p.gradient_of_weight:
        return f"more than {LONG_SUM} channels, whose sums the direct kernels alone make in blocks"
    return None


__all__ = [
    "LONG_SUM", "MANY_IMAGES", "Array", "Before", "Bound", "Direction", "From", "GradientProgram", "Method", "Offer",
    "Operands", "Packed", "Pass", "Problem", "Program", "Sums", "Told", "Triple", "aligned_bytes", "bound_of_terms",
    "float32_alone", "most_panel_bytes", "most_tiles", "packed_bytes", "packs_first", "panel_bytes", "panels",
    "pieces", "products", "split", "sum_bound", "sums_too_long", "two_axes",
]  # fmt: skip
