"""Convolution by Fourier transforms of tiles (overlap-save): large kernels.

Mathieu, Henaff and LeCun, "Fast Training of Convolutional Networks through FFTs", ICLR 2014; tiles after Zlateski, Jia,
Li and Durand, "The Anatomy of Efficient FFT and Winograd Convolutions on Modern CPUs", ICS 2019.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any, ClassVar

import numpy as np

from ... import _native
from ..passes import AXES, triple
from .fft_programs import Block, FftProgram, Transformed
from .fft_tiling import MOST_TILE_BYTES, Tiling, making_bytes, spectra_bytes, tiling, work
from .method import Bound, Direction, GradientProgram, Offer, Problem, Program, Triple

SAMPLES = {"36": 36, "16": 16, "24": 24, "64": 64, "128": 128, "256": 256}
LOST, ADDED = 64, 2.0**-110  # where numbers are near the smallest, as for Winograd
FEWEST, WIDEST = 25, 5  # taps, and of the widest axis, below which no tile pays
MOST_EXAMPLE_CHANNELS, LARGE_EXAMPLE = 24, 64  # of a generated problem; samples from which on it has three
DEEP_EXAMPLE = 24  # samples up to which volumes are generated


class Tuned:
    """The method's numbers (`tuning`): what a step of its work takes in multiply-adds of the direct kernels."""

    transform: float = 1.4  # a multiply-add of the transforms,
    product: float = 1.3  # of the products,
    moved: float = 60.0  # a value that a step hands to the next,
    deep: float = 6.0  # times as much in volumes, whose lines are short
    weight: float = 30.0  # a value of the transformed kernel, read once a run,
    made: float = 500.0  # and made, in a call
    block: float = 1e7  # a block of tiles: its steps' starts
    gain: float = 1.4  # of the direct kernels' work over all that; Zen 4, plans of 5x5 to 11x11, 31 taps of one axis


class Fft:
    """The method."""

    word, title, variants = "fft", "Fourier transforms", tuple(SAMPLES)
    former: ClassVar[dict[str, str]] = {}

    # ---- whether it can

    def why_not(self, p: Problem, variant: str | None = None) -> str | None:
        if variant is None:
            why: str | None = None
            for one in SAMPLES:
                why = self.why_not(p, one)
                if why is None:
                    break
            return why
        for dtype in (p.types.input, p.types.weight, p.types.result):
            if dtype not in (np.float32, np.float64):
                return f"the element type is {dtype}, not float32 or float64"
        if p.gradient_of_weight:
            return "it has no weight gradient"
        if p.channels == 0 or p.outputs == 0:
            return "there are no channels"
        t, samples = tiling(p, SAMPLES[variant]), SAMPLES[variant]
        if t is None:
            return f"the taps span more than a tile of {samples}"
        span = [max(max(q.taps[a]) - min(q.taps[a]) + 1 for q in p.passes) for a in AXES]
        if any(n > 1 and 3 * width > 2 * n + 2 for n, width in zip(t.samples, span, strict=True)):
            return f"the taps span {max(span)} of a tile of {samples}, which leaves too few outputs"
        made, room = making_bytes(p, t), _native.WORKSPACE_BYTES - MOST_TILE_BYTES
        if not p.held and made > room:
            return (
                f"making the transformed kernel takes {made:,} bytes, more than the {room:,} that a call has for it; "
                "a plan holds it"
            )
        least = max(Transformed(p, q, t).scratch(Block(1, (1, 1, 1))) for q in p.passes)
        if least > MOST_TILE_BYTES:
            return f"a tile of {samples} takes {least:,} bytes of scratch"
        return None

    # ---- whether it pays

    def offer(self, p: Problem) -> Offer:
        """The tile that costs the least, where that is less than direct sums."""
        if p.types.compute != np.float32:
            return Offer("", False, (
                "the type is float64, whose sums of whole numbers are exact; ask for Fourier transforms by name"
            ))  # fmt: skip
        taps, widest = max(prod(q.counts) for q in p.passes), max(max(q.counts) for q in p.passes)
        if taps < FEWEST or widest < WIDEST:
            return Offer("", False, (
                f"{taps} taps are too few for Fourier transforms, which pay from {FEWEST} on, {WIDEST} of an axis"
            ))  # fmt: skip
        costs = [
            (self._cost(p, t), name)
            for name, n in SAMPLES.items()
            if self.why_not(p, name) is None and (t := tiling(p, n)) is not None
        ]
        cost, best = min(costs)
        direct = self._direct(p)
        gain = p.machine.tuning.of("fft", Tuned).gain
        pays = direct > gain * cost
        return Offer(best, pays, (
            f"many taps: Fourier transforms in tiles of {best} take the time of {cost / 1e6:,.1f} million direct "
            f"multiply-adds an image, direct sums that of {direct / 1e6:,.1f}"
        ) if pays else (
            f"Fourier transforms would take the time of {cost / 1e6:,.1f} million direct multiply-adds an image, "
            f"direct sums that of {direct / 1e6:,.1f}, and pay where that is {gain} times as much"
        ))  # fmt: skip

    def _cost(self, p: Problem, t: Tiling) -> float:
        """The time of an image in multiply-adds of the direct kernels."""
        tuned = p.machine.tuning.of("fft", Tuned)
        transforms, products = work(p, t)
        first = Transformed(p, p.passes[0], t)
        moved = first.scratch(Block(1, first.tiles)) / p.machine.element * len(p.passes)
        blocks = prod(-(-n // own) for n, own in zip(first.tiles, first.block.tiles, strict=True))
        lanes = p.machine.lanes
        narrow = 0.0 if first.pointwise else lanes / min(lanes, 2 * p.outputs)
        through = (tuned.transform * transforms + tuned.moved * moved) * (tuned.deep if len(t.axes) == 3 else 1)
        values = spectra_bytes(p, t) / p.machine.element
        return (
            through + tuned.product * narrow * products + tuned.block * blocks
            + (tuned.weight + (0 if p.held else tuned.made)) * values
        )  # fmt: skip

    def _direct(self, p: Problem) -> float:
        """The time of direct sums of an image: in panels as wide as the outputs, or a lane an output channel."""
        macs = sum(prod(q.output_size(p.size)) * prod(q.counts) for q in p.passes)
        lanes, outputs = p.machine.lanes, p.outputs
        narrow = -(-outputs // lanes) * lanes / outputs if p.groups == 1 else 2.0
        return macs * p.groups * p.channels * outputs * narrow

    # ---- what it does

    def program(self, p: Problem, variant: str) -> Program:
        t = tiling(p, SAMPLES[variant])
        assert t is not None
        return FftProgram(p, t)

    def gradient_program(self, p: Problem, variant: str) -> GradientProgram:
        raise NotImplementedError("Fourier transforms have no weight gradient")

    def grain(self, p: Problem, variant: str) -> Triple:
        """Tiles lie within a phase of the stride of an input gradient."""
        t, step = tiling(p, SAMPLES[variant]), p.passes[0].step
        if t is None:
            return 1, 1, 1
        return triple([t.outputs[a] * step[a] for a in AXES])

    def bound(self, p: Problem, variant: str) -> Bound:
        """|y - y_ref| <= (C + N) u * sum over c of max|x[n, c]| * sum|w[o, c]|, C summed channels, N the samples of a
        tile along an axis: an error follows the largest pixel of a tile. Random, one-signed, constant and badly scaled
        data stayed below 0.5 of it."""
        roundings = p.channels + SAMPLES[variant]
        return Bound(roundings, "plane", LOST * roundings, ADDED)

    def example(self, case: Any, variant: str, direction: Direction) -> Any:
        """A kernel of more than one tap that takes half a tile at the most, often of one row; few channels of large
        tiles."""
        few = case.in_channels + case.out_channels <= MOST_EXAMPLE_CHANNELS
        if direction is Direction.WEIGHT_GRADIENT or not (case.in_channels and case.out_channels) or case.large:
            return None
        if 0 in case.size or case.batch == 0 or not few or (case.axes == 3 and SAMPLES[variant] > DEEP_EXAMPLE):
            return None
        kernel, dilation = tuple(max(2, k) for k in case.kernel), case.dilation
        apart = dilation if isinstance(dilation, int) else max(dilation)
        if (max(kernel) - 1) * apart + 1 > SAMPLES[variant] // 2:
            kernel, dilation, apart = (3, 2, 2)[: case.axes], 1, 1
        samples = SAMPLES[variant]
        if samples > 2 * LARGE_EXAMPLE or case.index % (8 if samples > LARGE_EXAMPLE else 2):
            kernel = (*(1,) * (len(kernel) - 1), kernel[-1])  # rows alone
        size = tuple(max(n, (k - 1) * apart + 5) for n, k in zip(case.size, kernel, strict=True))
        if case.index % 4 == 1 and samples <= LARGE_EXAMPLE:  # several tiles
            size = (*size[:-1], max(size[-1], samples + 9))
        least = SAMPLES[variant] >= LARGE_EXAMPLE or case.axes == 3
        channels = {"in_channels": 1, "out_channels": 2, "groups": 1} if least else {}
        dtypes = ("float64",) * 2 if case.index % 3 == 0 else ("float32",) * 2
        return replace(case, kernel=kernel, dilation=dilation, size=size, dtypes=dtypes, **channels)


METHOD = Fft()
