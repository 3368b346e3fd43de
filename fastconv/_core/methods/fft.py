"""Convolution by Fourier transforms of tiles (overlap-save): large kernels.

Mathieu, Henaff and LeCun, "Fast Training of Convolutional Networks through FFTs", ICLR 2014; tiles after Zlateski, Jia,
Li and Durand, "The Anatomy of Efficient FFT and Winograd Convolutions on Modern CPUs", ICS 2019.
"""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import numpy as np

from ... import _native
from ..passes import AXES, triple
from .fft_tiling import MOST_TILE_BYTES, Block, making_bytes, tiling
from .method import Bound, Direction, GradientProgram, Offer, Problem, Program, Triple, bent

SAMPLES = {"36": 36, "16": 16, "24": 24, "64": 64, "128": 128, "256": 256}
LOST, ADDED = 64, 2.0**-110  # where numbers are near the smallest, as for Winograd
MOST_EXAMPLE, LARGE_EXAMPLE = 12, 64  # channels of a generated problem; samples from which on it has three
DEEP_EXAMPLE, LARGEST_EXAMPLE = 24, 1 << 12  # samples up to which volumes are generated; pixels of a large problem


class Fft:
    """The method."""

    word, title, variants = "fft", "Fourier transforms", tuple(SAMPLES)
    former: ClassVar[dict[str, str]] = {}

    # ---- whether it can

    def why_not(self, p: Problem, variant: str | None = None) -> str | None:
        if variant is None:
            if p.wish == "auto":  # which `offer` leaves to the others: no tiles need to be laid
                return None
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
        if p.empty:  # nothing to lay tiles over
            return None
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
        from .fft_programs import Transformed

        least = max(Transformed(p, q, t).scratch(Block(1, (1, 1, 1))) for q in p.passes)
        if least > MOST_TILE_BYTES:
            return f"a tile of {samples} takes {least:,} bytes of scratch"
        return None

    # ---- whether it pays

    halves, rounds = "Fourier transforms of them are", False

    def offer(self, p: Problem) -> Offer:
        """Never by itself: what a step costs has not been measured on a machine that does nothing else."""
        return Offer("", False, "Fourier transforms are taken where they are asked for by name")

    # ---- what it does

    def program(self, p: Problem, variant: str) -> Program:
        from .fft_programs import FftProgram  # no call needs it unless it asks for this

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
        if direction is Direction.WEIGHT_GRADIENT or not (case.in_channels and case.out_channels):
            return None
        if case.large and prod(case.size) > LARGEST_EXAMPLE:
            return None
        if 0 in case.size or case.batch == 0:
            return None
        if case.axes == 3 and SAMPLES[variant] > DEEP_EXAMPLE:
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
        few, more, groups = min(case.in_channels, MOST_EXAMPLE), min(case.out_channels, MOST_EXAMPLE), case.groups
        if least:
            few, more, groups = 1, 2, 1
        elif few % groups or more % groups:
            groups = 1
        channels = {"in_channels": few, "out_channels": more, "groups": groups}
        dtypes = ("float64",) * 2 if case.index % 3 == 0 else ("float32",) * 2
        return bent(case, kernel=kernel, dilation=dilation, size=size, dtypes=dtypes, **channels)


METHOD = Fft()
