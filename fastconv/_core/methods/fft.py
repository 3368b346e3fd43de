"""Convolution by Fourier transforms of tiles (overlap-save): large kernels.

Mathieu, Henaff and LeCun, "Fast Training of Convolutional Networks through FFTs", ICLR 2014; tiles after Zlateski, Jia,
Li and Durand, "The Anatomy of Efficient FFT and Winograd Convolutions on Modern CPUs", ICS 2019.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..passes import AXES, terms, triple
from .fft_programs import BLOCK_BYTES, Block, FftProgram, Tiling, Transformed, spectra_bytes, tiling, work
from .method import (
    LONG_SUM,
    Bound,
    Direction,
    GradientProgram,
    Offer,
    Problem,
    Program,
    Triple,
    sum_bound,
)

SAMPLES = {"32": 32, "16": 16, "24": 24, "36": 36, "48": 48, "64": 64, "96": 96, "128": 128, "256": 256}
CALL_BYTES = 16 << 20  # of the transformed kernel of a call, which is scratch
MOST_EXAMPLE_WORK = 20_000_000  # multiply-adds of a generated problem


class Tuned(NamedTuple):
    """The method's numbers (`tuning`)."""

    transform: float = 2.0  # time of a multiply-add of the transforms in those of the direct kernels
    product: float = 1.5  # of the products
    weight: float = 40.0  # of reading a value of the transformed kernel, once a run
    made: float = 60.0  # of making it, in a call
    step: float = 4e6  # of what a block costs beside, its steps' starts
    gain: float = 1.3  # of the direct kernels' work over all that


class Fft:
    """The method."""

    word, title, variants = "fft", "Fourier transforms", tuple(SAMPLES)
    former: ClassVar[dict[str, str]] = {}

    # ---- whether it can

    def why_not(self, p: Problem, variant: str | None = None) -> str | None:
        if variant is None:
            whys = [self.why_not(p, one) for one in SAMPLES]
            return None if None in whys else whys[-1]
        for dtype in (p.types.input, p.types.weight, p.types.result):
            if dtype not in (np.float32, np.float64):
                return f"the element type is {dtype}, not float32 or float64"
        if p.gradient_of_weight:
            return "it has no weight gradient"
        if p.channels == 0 or p.outputs == 0 or p.empty:
            return "there is nothing to sum"
        t, samples = tiling(p, SAMPLES[variant]), SAMPLES[variant]
        if t is None:
            return f"the taps span more than a tile of {samples}"
        if max(t.samples) == 1:
            return "the kernel is one tap"
        span = [n - (m - 1) * s for n, m, s in zip(t.samples, t.outputs, p.passes[0].stride, strict=True)]
        if any(n > 1 and 3 * width > 2 * n + 2 for n, width in zip(t.samples, span, strict=True)):
            return f"the taps span {max(span)} of a tile of {samples}, which leaves too few outputs"
        if not p.held and spectra_bytes(p, t) > CALL_BYTES:
            return (
                f"the transformed kernel takes {spectra_bytes(p, t):,} bytes, more than the {CALL_BYTES:,} that a call "
                "may have beside its arrays; a plan holds it"
            )
        least = Transformed(p, p.passes[0], t).scratch(Block(1, (1, 1, 1)))
        if least > BLOCK_BYTES * 3:
            return f"a tile of {samples} takes {least:,} bytes of scratch"
        return None

    # ---- whether it pays

    def offer(self, p: Problem) -> Offer:
        """The tile that costs the least, where that is less than direct sums."""
        costs = [
            (self._cost(p, t), name)
            for name, n in SAMPLES.items()
            if self.why_not(p, name) is None and (t := tiling(p, n)) is not None
        ]
        cost, best = min(costs)
        direct = self._direct(p)
        gain = p.machine.tuning.of("fft", Tuned()).gain
        pays = direct > gain * cost
        return Offer(best, pays, (
            f"a large kernel: transforms of tiles of {best} take the time of {cost / 1e6:,.1f} million multiply-adds an "
            f"image, direct sums that of {direct / 1e6:,.1f}"
        ) if pays else (
            f"too few taps for Fourier transforms, which would take the time of {cost / 1e6:,.1f} million multiply-adds "
            f"an image, direct sums that of {direct / 1e6:,.1f}"
        ))  # fmt: skip

    def _cost(self, p: Problem, t: Tiling) -> float:
        """The time of an image in multiply-adds of the direct kernels."""
        tuned = p.machine.tuning.of("fft", Tuned())
        transforms, products = work(p, t)
        values = spectra_bytes(p, t) / p.machine.element * p.machine.element / 4
        narrow = p.machine.lanes / min(p.machine.lanes, 2 * p.outputs)
        return (
            tuned.transform * transforms + tuned.product * narrow * products
            + (tuned.weight + (0 if p.held else tuned.made)) * values + tuned.step
        )  # fmt: skip

    def _direct(self, p: Problem) -> float:
        """The time of direct sums of an image."""
        macs = sum(prod(q.output_size(p.size)) * prod(q.counts) for q in p.passes)
        narrow = p.machine.lanes / min(p.machine.lanes, p.outputs) if p.groups == 1 else 2.0
        return macs * p.groups * p.channels * p.outputs * narrow

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
        assert t is not None
        return triple([t.outputs[a] * step[a] for a in AXES])

    def bound(self, p: Problem, variant: str) -> Bound:
        """|y - y_ref| <= (n + N) u * sum over c of max|x[n, c]| * sum|w[o, c]|, n terms of a sum, N the samples of a
        tile along its axes together: an error follows the largest pixel of a tile."""
        t = tiling(p, SAMPLES[variant])
        own = sum(t.samples) if t else 0
        count = min(max((terms(q, p.channels) for q in p.passes), default=0), LONG_SUM)
        roundings = count + own + sum_bound(p).roundings - min(count, LONG_SUM)
        return Bound(roundings, "plane", 64 * roundings, 2.0**-110)

    def example(self, case: Any, variant: str, direction: Direction) -> Any:
        """A kernel of more than one tap, of which a third of a tile at the most is taken."""
        if direction is Direction.WEIGHT_GRADIENT:
            return None
        if not (0 < case.in_channels <= 8 and 0 < case.out_channels <= 8) or 0 in case.size or case.large:
            return None
        kernel = tuple(max(2, k) for k in case.kernel)
        dilation = case.dilation if isinstance(case.dilation, int) else max(case.dilation)
        if (max(kernel) - 1) * dilation + 1 > SAMPLES[variant] // 2:
            kernel, dilation = (3, 2), 1
        size = tuple(max(n, (k - 1) * dilation + 3) for n, k in zip(case.size, kernel, strict=True))
        if SAMPLES[variant] ** 3 * (case.in_channels + case.out_channels) > MOST_EXAMPLE_WORK:
            return None
        dtypes = ("float64",) * 2 if case.index % 3 == 0 else ("float32",) * 2
        return replace(case, kernel=kernel, dilation=dilation, size=size, dtypes=dtypes)


METHOD = Fft()
