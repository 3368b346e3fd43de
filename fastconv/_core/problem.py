"""A convolution as a question: everything that a choice may look at, and nothing else.

A `Problem` is hashable and the key of every choice and plan. It lives on three axes (depth, height, width).
"""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from math import prod

from .. import _native
from . import threads
from .constant import BLOCK_BYTES, as_zeros, first_block, is_constant
from .geometry import Geometry
from .passes import Pass, Triple, forward_passes, input_gradient_passes, triple
from .record import NamedTuple
from .tuning import Tuning, tuning_here
from .types import COMPUTE, PADDING_MODES, DType, Types


class Direction(Enum):
    """Which of a convolution's three sums; the transposed convolution is an input gradient."""

    FORWARD = "forward"
    INPUT_GRADIENT = "input gradient"
    WEIGHT_GRADIENT = "weight gradient"


class Use(Enum):
    """How a result is asked for, which decides what it pays to prepare."""

    ONCE = "call"  # a single call, which must earn a transform of the weights back in one image
    HELD = "plan"  # a plan: weights are transformed once for many runs
    NETWORK = "network"  # a plan of many, whose weights come from memory for every run
    BATCH = "batch"  # a training step, which packs the weights once for a whole batch


class Machine(NamedTuple):
    """What a choice may know of the machine, for one type of sums."""

    isa: str
    compute: int  # fc_compute: the type of sums
    element: int  # bytes of a sum
    lanes: int  # of a vector
    vectors: int  # of a full panel
    rows: int  # of a full register tile
    lane_vectors: int  # that the kernels with a lane an output channel compute together
    threads: int
    tuning: Tuning
    workspace: int = _native.WORKSPACE_BYTES  # scratch of all threads together

    @property
    def width(self) -> int:
        """Output channels of a full panel."""
        return self.lanes * self.vectors

    @property
    def share(self) -> int:
        """Scratch of a thread."""
        return self.workspace // self.threads

    def room(self, parts: int, eighths: int) -> int:
        """So many 128ths of the second-level cache, in bytes; where the caller caps the workspace, no more than so many
        eighths of a thread's share of it."""
        usual = self.tuning.share(parts)
        return min(usual, max(1, self.share * eighths // 8)) if self.capped else usual

    @property
    def capped(self) -> bool:
        """Whether the caller allows less scratch than is usual."""
        return self.workspace < _native.WORKSPACE_BYTES

    @property
    def chunk(self) -> int:
        """Output channels of the kernels with a lane each."""
        return self.lanes * self.lane_vectors


class Problem(NamedTuple):
    """A convolution: `geometry` on three axes."""

    geometry: Geometry
    direction: Direction
    types: Types
    use: Use
    machine: Machine
    wish: str = "auto"  # the method that the caller asks for: a word, or word:variant
    first: bool = False  # whether a plan is for channels-first arrays

    @property
    def transposed(self) -> bool:
        return self.direction is Direction.INPUT_GRADIENT

    @property
    def gradient_of_weight(self) -> bool:
        return self.direction is Direction.WEIGHT_GRADIENT

    @property
    def held(self) -> bool:
        """Whether a plan holds the weights."""
        return self.use in (Use.HELD, Use.NETWORK)

    @property
    def groups(self) -> int:
        return self.geometry.groups

    @property
    def channels(self) -> int:
        """Channels of one group that are summed over."""
        g = self.geometry
        return (g.out_channels if self.transposed else g.in_channels) // g.groups

    @property
    def outputs(self) -> int:
        """Output channels of one group."""
        g = self.geometry
        return (g.in_channels if self.transposed else g.out_channels) // g.groups

    @property
    def size(self) -> Triple:
        """Of an output."""
        return triple(self.geometry.input_size if self.transposed else self.geometry.output_size)

    @property
    def input_size(self) -> Triple:
        """Of what is laid under the kernel."""
        return triple(self.geometry.output_size if self.transposed else self.geometry.input_size)

    @property
    def padding_mode(self) -> str:
        """An input gradient is made of the padded image."""
        return "zeros" if self.transposed else self.geometry.padding_mode

    @property
    def compute(self) -> int:
        """fc_compute of the sums."""
        return self.machine.compute

    @property
    def mode(self) -> int:
        """`padding_mode` as native code numbers it."""
        return PADDING_MODES[self.padding_mode]

    @property
    def passes(self) -> tuple[Pass, ...]:
        """The passes that write an output; where nothing is to be computed, all."""
        return _passes(self.geometry, self.transposed)

    @property
    def empty(self) -> bool:
        """Whether no pass writes an output."""
        return all(0 in q.output_size(self.size) for q in self.passes)

    @property
    def macs(self) -> int:
        """Multiply-adds by the definition of convolution."""
        g = self.geometry
        return g.batch * prod(g.output_size) * g.out_channels * (g.in_channels // g.groups) * prod(g.kernel_size)


@lru_cache(maxsize=1024)
def _passes(g: Geometry, transposed: bool) -> tuple[Pass, ...]:
    passes, size = (input_gradient_passes(g), g.input_size) if transposed else (forward_passes(g), g.output_size)
    return tuple(p for p in passes if 0 not in p.output_size(triple(size))) or tuple(passes)


@lru_cache(maxsize=1024)
def lifted(g: Geometry) -> Geometry:
    """The geometry on three axes: those that are missing come first, of size 1."""
    missing = 3 - len(g.input_size)
    if not missing:
        return g
    ones = (1,) * missing
    return g._replace(
        input_size=ones + g.input_size, kernel_size=ones + g.kernel_size, output_size=ones + g.output_size,
        stride=ones + g.stride, dilation=ones + g.dilation, padding=((0, 0),) * missing + g.padding,
    )  # fmt: skip


@lru_cache(maxsize=64)
def _machine(compute: int, team: int, isa: int) -> Machine:
    element, lanes, vectors, rows = _native.tile_shape(compute)
    _, chunk = _native.lane_chunk(compute)
    return Machine(
        _native.isa_name(), compute, element, lanes, vectors, rows, chunk // lanes, team, tuning_here()
    )


def machine_here(result: DType, team: int | None = None) -> Machine:
    """This machine under the instruction set in use, for results of a type, on `team` threads."""
    return _machine(COMPUTE[result], threads.effective(None) if team is None else team, _native.isa_number())


def problem(
    g: Geometry, direction: Direction, types: Types, use: Use = Use.ONCE, team: int | None = None, wish: str = "auto",
    block: int = BLOCK_BYTES, first: bool = False,
) -> Problem:  # fmt: skip
    """The problem of a geometry of any number of axes on this machine.

    Of a padding that holds a constant, that of a block of the padded image, of at most `block` bytes.
    """
    if direction is Direction.INPUT_GRADIENT:
        g = as_zeros(g)
    elif is_constant(g):
        g = first_block(g, types.input.itemsize, block)
    return Problem(lifted(g), direction, types, use, machine_here(types.compute, team), wish, first)
