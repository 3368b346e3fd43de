"""Winograd along lines: kernels of any size at stride 1, along one axis or two (drivers/winograd_lines.pxi).

Long kernels are cut into blocks of taps, whose sums are made in the transform as those over channels are.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

from .estimates import CALL, MARGIN, MOVED, PART, plain_sums, read, whole_vectors
from .method import (
    LONG_SUM,
    Bound,
    Direction,
    GradientProgram,
    Offer,
    Pass,
    Problem,
    Program,
    Triple,
    bent,
    float32_alone,
)
from .winograd_lines_programs import TILE, WinogradLinesProgram, cut_of
from .winograd_programs import dilation_phases

ROUNDINGS = 96  # that the transforms add to those of the sum
LOST, ADDED = 8, 2.0**-120  # as of Winograd in tiles
# What takes as long as so many multiply-adds (Zen 4): a weight transformed in a call, its packing with it (28 to 44),
# or into memory that is new in every call, as the C library keeps 32 MB at most.
MADE, MADE_ANEW = 50, 300
KEPT = 32 << 20
FEWEST = 2  # channels: with 1 and 15 x 15 taps an image took four times what was estimated (Zen 4)
MOST_EXAMPLE_VALUES = 60_000  # channels x outputs x pixels of a generated problem
# Of generated problems; `True` where an axis that is not transformed has a stride.
KERNELS: dict[int, tuple[tuple[int, ...], ...]] = {
    1: tuple((k,) for k in range(3, 14)),
    2: ((5, 5), (1, 7), (7, 7), (5, 1), (3, 5), (2, 5), (9, 1), (4, 4), (11, 3), (6, 2), (1, 3), (8, 5)),
    3: ((3, 1, 1), (1, 5, 5), (2, 1, 5), (5, 3, 1), (1, 1, 7), (3, 1, 4), (2, 5, 4), (4, 2, 1)),
}  # fmt: skip


class WinogradLines:
    """The method."""

    word, title, variants = "winograd", "Winograd along lines", ("lines",)
    halves, rounds = "Winograd along lines transforms them once", False
    former: ClassVar[dict[str, str]] = {}

    def why_not(self, p: Problem, variant: str | None = None) -> str | None:
        q = p.passes[0]
        if why := float32_alone(p):
            return why
        if p.gradient_of_weight:
            return f"it has no {p.direction.value}"
        if q.step != (1, 1, 1):
            return "it has no input gradient at a stride"
        if p.groups != 1:
            return f"groups is {p.groups}, not 1"
        if p.channels == 0 or p.outputs == 0:
            return "there are no channels"
        return self._why_not_cut(p, q)

    def _why_not_cut(self, p: Problem, q: Pass) -> str | None:
        cut = cut_of(q)
        if cut is None:
            return "no axis has three taps or more at stride 1"
        if cut.counts[1:] == (3, 3):
            return "the kernel is 3 x 3, which has tiles of its own"
        if cut.apart != (1, 1, 1):
            if p.padding_mode != "zeros" or q.stride != (1, 1, 1):
                return f"the kernel is dilated by {cut.apart}, which it computes for zeros at stride 1 alone"
            if cut.apart[0] != 1 or cut.order != (0, 1, 2):
                return f"the kernel is dilated by {cut.apart}, along its planes"
        return None

    def offer(self, p: Problem) -> Offer:
        q = p.passes[0]
        cut = cut_of(q)
        assert cut is not None
        if p.channels * cut.weights > LONG_SUM:
            return Offer("lines", False, (
                f"sums of more than {LONG_SUM} blocks and channels, which the direct kernels alone make in blocks"
            ))  # fmt: skip
        if p.channels < FEWEST:
            return Offer("lines", False, f"fewer than {FEWEST} channels leave the lanes of its transforms idle")
        direct, own = plain_sums(p), _estimate(p)
        if MARGIN * own > direct:
            return Offer("lines", False, (
                f"too small for Winograd along lines: about {own:,} multiply-adds an image with its transforms for a "
                f"{p.use.value}, and {direct:,} without"
            ))  # fmt: skip
        outputs, kernel = prod(cut.tile), "x".join(map(str, q.counts if q.counts[0] > 1 else q.counts[1:]))
        return Offer("lines", True, (
            f"{kernel} at stride 1 in float32: {cut.elements * cut.weights} multiplications for {outputs} outputs "
            f"instead of {outputs * prod(cut.counts)}"
        ), own / direct)  # fmt: skip

    def program(self, p: Problem, variant: str) -> Program:
        return WinogradLinesProgram(p)

    def gradient_program(self, p: Problem, variant: str) -> GradientProgram:
        raise NotImplementedError("Winograd along lines has no weight gradient")

    def grain(self, p: Problem, variant: str) -> Triple:
        """Tiles lie within a phase of the dilation. Where blocks reach beyond the kernel, what lies there cancels but
        for rounding, and a piece of that axis would have other bits: it is one grain, as long as the last tile reaches.
        """
        cut, grain = cut_of(p.passes[0]), list(p.geometry.dilation)
        if cut is None:
            return 1, 1, 1
        for axis, line, taps in zip(cut.order[1:], cut.lines, cut.counts[1:], strict=True):
            if line:
                beyond = line.taps + TILE * (line.blocks(taps) - 1) > taps
                tile = TILE * grain[axis]
                grain[axis] = tile * (-(-p.size[axis] // tile) + 1) if beyond else tile
        z, y, x = grain
        return z, y, x

    def bound(self, p: Problem, variant: str) -> Bound:
        """Summed: channels times planes and blocks of taps."""
        cut = cut_of(p.passes[0])
        assert cut is not None
        roundings = p.channels * cut.weights + ROUNDINGS
        return Bound(roundings, "plane", LOST * roundings, ADDED)

    def example(self, case: Any, variant: str, direction: Direction) -> Any:
        """Kernels of many sizes; a stride where nothing is transformed, and a dilated one now and then."""
        if direction is Direction.WEIGHT_GRADIENT:
            return None
        kernel = KERNELS[case.axes][case.index % len(KERNELS[case.axes])]
        strided = case.index % 3 == 0 and direction is Direction.FORWARD
        stride = tuple(2 if strided and k < 3 else 1 for k in kernel)
        dilation: Any = 1
        if not strided and case.padding_mode == "zeros" and case.axes < 3 and case.index % 4 == 1:
            dilation = case.dilation
        most = dilation if isinstance(dilation, int) else max(dilation)
        size = tuple(max(n, (k - 1) * most + 5) for n, k in zip(case.size, kernel, strict=True))
        if not 0 < case.in_channels * case.out_channels * prod(size) < MOST_EXAMPLE_VALUES:
            return None
        return bent(
            case, kernel=kernel, stride=stride, dilation=dilation, groups=1, size=size, dtypes=("float32", "float32")
        )


def _estimate(p: Problem) -> int:
    """What an image takes, in multiply-adds: a transformed number counts for `MOVED`, a weight that a call transforms
    for `MADE`."""
    q = p.passes[0]
    cut = cut_of(q)
    assert cut is not None
    channels, outputs = whole_vectors(p.channels), whole_vectors(p.outputs)
    parts = dilation_phases(q, p.size)
    planes, *size = cut.turned(parts[0].output_size(p.size))
    tiles = [-(-n // tile) for n, tile in zip(size, cut.tile, strict=True)]
    under = [  # transformed inputs
        (n - 1) * (1 if line else stride) + (line.blocks(taps) if line else taps)
        for n, line, stride, taps in zip(tiles, cut.lines, cut.strides[1:], cut.counts[1:], strict=True)
    ]
    moved = MOVED[cut.axes] * cut.elements * planes
    image = prod(tiles) * planes * cut.elements * cut.weights * p.channels * outputs
    image += moved * (prod(under) * cut.counts[0] * channels + prod(tiles) * outputs)
    image = CALL + image * len(parts) + PART * (len(parts) - 1)
    weights = p.channels * outputs * cut.elements * cut.weights
    if p.held:
        return image + len(parts) * read(p, weights)
    return image + (MADE if weights * p.machine.element < KEPT else MADE_ANEW) * weights


METHOD = WinogradLines()
