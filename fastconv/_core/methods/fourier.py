"""Few channels and large kernels by fast Fourier transforms of pairs of tiles (drivers/fourier.pxi): overlap-save.

Two tiles beside each other are the real and the imaginary part of one transform, which a real kernel keeps apart. Tiles
are short enough for the second-level cache, in which one transform of a whole image does not lie.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf, log2
from typing import Any, ClassVar

import numpy as np

from ... import _native
from ..passes import span
from .estimates import PEAK, plain_sums
from .fourier_program import Blocking, FourierProgram, blocking, held_bytes, roundings, scratch_bytes
from .method import (
    Bound,
    Direction,
    GradientProgram,
    Offer,
    Pass,
    Problem,
    Program,
    Triple,
    bent,
    two_axes,
)

SAMPLES = {f"pairs-{n}": n for n in (128, 64, 256, 512, 1024)}
LOST, ADDED = 64, 2.0**-110  # where numbers are near the smallest, as for Winograd
CACHED_BYTES = 8 << 20  # of spectra that are read anew for every pair of tiles
MOST_TILE_BYTES = 12 << 20  # scratch of a thread, and what a call's transformed kernels may take


class Tuned:
    """The method's numbers (`tuning`): nanoseconds of one thread, in single precision."""

    sample: float = 0.35  # a transform, there and back, of a sample of one tile, for each doubling of the samples
    product: float = 0.15  # of spectra, for a sample of two tiles
    moved: float = 0.5  # a sample in or out
    strided: float = 2.0  # more of that where channels may lie side by side
    streamed: float = 0.7  # more of that where the spectra of kernels lie in no cache
    call: float = 60_000.0  # what a call costs beside
    kernel: float = 60_000.0  # a transformed kernel
    taps: int = 40  # from which on it may be taken by itself
    gain: float = 1.5  # what it must promise for that


class Fourier:
    """The method: by itself for large kernels of few channels."""

    word, title, variants = "fft", "fast Fourier transforms of few channels", tuple(SAMPLES)
    former: ClassVar[dict[str, str]] = {}
    halves, rounds = "Fourier transforms of them are", False

    # ---- whether it can

    def why_not(self, p: Problem, variant: str | None = None) -> str | None:
        if variant is None:
            if p.wish == "auto" and (why := _few(p)):  # no tiles need to be laid
                return why
            reasons = [self.why_not(p, one) for one in SAMPLES]
            return None if None in reasons else reasons[0]
        for dtype in (p.types.input, p.types.weight, p.types.result):
            if dtype not in (np.float32, np.float64):
                return f"the element type is {dtype}, not float32 or float64"
        if p.gradient_of_weight:
            return "it has no weight gradient"
        if why := two_axes(p):
            return why
        if p.channels == 0 or p.outputs == 0:
            return "there are no channels"
        if p.empty:
            return None
        if any(q.stride != (1, 1, 1) for q in p.passes):
            return "the stride is not 1"
        samples = SAMPLES[variant]
        for q in p.passes:
            if why := self._too_large(p, q, samples):
                return why
        if p.wish == self.word and (best := cheapest(p)) != variant:
            return f"tiles of {SAMPLES[best]} samples cost less" if best else "no tile of samples can be laid"
        return None

    def _too_large(self, p: Problem, q: Pass, samples: int) -> str | None:
        width = max(span(q.taps[1]), span(q.taps[2]))
        if 3 * width > 2 * samples + 2:
            return f"the taps span {width} of a tile of {samples}, which leaves too few outputs"
        if samples < _native.fourier_lanes(p.compute):
            return f"a tile of {samples} is shorter than a vector"
        own = scratch_bytes(p, q, samples)
        if own > MOST_TILE_BYTES:
            return f"a tile of {samples} takes {own:,} bytes of scratch"
        if not p.held and (made := held_bytes(p, q, samples)) > MOST_TILE_BYTES:
            return (
                f"making the transformed kernel takes {made:,} bytes, more than the {MOST_TILE_BYTES:,} that a call "
                "has for it; a plan holds it"
            )
        return None

    # ---- whether it pays

    def offer(self, p: Problem) -> Offer:
        pays = p.machine.tuning.of("fourier", Tuned)
        best = cheapest(p)
        if best is None:
            return Offer("", False, "the kernel fits no tile of Fourier transforms")
        if why := _few(p):
            return Offer(best, False, why)
        own, direct = cost(p, SAMPLES[best]), direct_cost(p)
        if pays.gain * own > direct:
            return Offer(best, False, f"Fourier transforms would cost about {own / direct:.1f} times the plain sums")
        return Offer(best, True, (
            f"{span(p.passes[0].taps[1])} x {span(p.passes[0].taps[2])} taps of few channels: Fourier transforms of "
            f"tiles of {SAMPLES[best]} samples cost about 1/{direct / own:.0f} of the plain sums"
        ), own / direct)  # fmt: skip

    # ---- what it does

    def program(self, p: Problem, variant: str) -> Program:
        return FourierProgram(p, SAMPLES[variant])

    def gradient_program(self, p: Problem, variant: str) -> GradientProgram:
        raise NotImplementedError("Fourier transforms have no weight gradient")

    def grain(self, p: Problem, variant: str) -> Triple:
        """Rows of tiles, and pairs of them, within a phase of the stride of an input gradient."""
        if p.empty:
            return 1, 1, 1
        blocks = [blocking(p, q, SAMPLES[variant]) for q in p.passes]
        (step, *_) = [q.step for q in p.passes]
        height, width = (max(b.outputs[a] for b in blocks) for a in (0, 1))
        return 1, (height if any(b.samples[0] for b in blocks) else 1) * step[1], 2 * width * step[2]

    def bound(self, p: Problem, variant: str) -> Bound:
        """|y - y_ref| <= (C + 8 log2 N) u * sum over c of max|x[n, c]| * sum|w[o, c]|, C summed channels, N the samples
        of a tile along an axis: an error follows the largest pixel of a tile. Random, one-signed, constant and badly
        scaled data stayed below half of it, and below the bound of direct sums with its largest values. Whole numbers
        come out exactly: their outputs are rounded, or computed directly where the error might be half a one."""
        count = roundings(p, SAMPLES[variant])
        return Bound(count, "plane", LOST * count, ADDED, exact=True)

    def example(self, case: Any, variant: str, direction: Direction) -> Any:
        """A kernel of two thirds of a tile at the most, at stride 1 forward; rows alone of the largest tiles."""
        if direction is Direction.WEIGHT_GRADIENT or case.axes == 3 or not (case.in_channels and case.out_channels):
            return None
        if 0 in case.size or case.batch == 0:
            return None
        samples, index = SAMPLES[variant], case.index
        if samples > 128 and case.axes == 2 and index % 8:  # one axis alone
            return None
        kernel = tuple(max(1, min(k + index % 5, samples // 3)) for k in case.kernel)
        if samples > 128 or index % 3:  # whose tiles end at every row
            kernel = (*(1,) * (len(kernel) - 1), kernel[-1])
        size = tuple(max(n, k + 5) for n, k in zip(case.size, kernel, strict=True))
        if index % 4 == 1 and samples <= 128:  # several tiles
            size = (*size[:-1], max(size[-1], 2 * samples + 9))
        dtypes = ("float64",) * 2 if index % 3 == 0 else ("float32",) * 2
        most = 1 if samples > 256 else 3
        few, more, groups = min(case.in_channels, most), min(case.out_channels, most), case.groups
        if few % groups or more % groups:
            groups = 1
        stride = case.stride if direction is Direction.INPUT_GRADIENT else 1
        return bent(
            case, kernel=kernel, dilation=1, stride=stride, size=size, dtypes=dtypes, in_channels=few,
            out_channels=more, groups=groups,
        )  # fmt: skip


def _few(p: Problem) -> str | None:
    """Why it is not taken by itself: so that what is small is not even looked at."""
    if p.empty or p.gradient_of_weight:
        return "it has no weight gradient"
    least = p.machine.tuning.of("fourier", Tuned).taps
    taps = min((q.counts[1] * q.counts[2] for q in p.passes), default=0)
    if taps < least:
        return f"{taps} taps are too few for Fourier transforms, which pay from {least} on"
    return None


def cost(p: Problem, samples: int) -> float:
    """Nanoseconds of one thread for an image."""
    n, total = p.machine.tuning.of("fourier", Tuned), p.machine.tuning.of("fourier", Tuned).call
    wide = p.machine.element / 4
    for q in p.passes:
        b = blocking(p, q, samples)
        rows, columns = b.samples[0] or _native.fourier_lanes(p.compute), b.samples[1]
        pairs, doublings = _pairs(p, q, b), log2(columns) + log2(max(1, b.samples[0]))
        moved = n.moved + (n.strided if p.groups * max(p.channels, p.outputs) > 1 else 0)
        a_sample = (p.channels + p.outputs) * (wide * n.sample * doublings + 2 * moved) / 2
        streamed = n.streamed if held_bytes(p, q, samples) > CACHED_BYTES else 0
        a_sample += wide * (n.product + streamed) * p.channels * p.outputs
        total += p.groups * pairs * rows * columns * a_sample
        if not p.held:
            spectra = p.groups * p.channels * p.outputs
            total += spectra * (n.kernel + 2 * n.sample * rows * columns * doublings)
    return total


def _pairs(p: Problem, q: Pass, b: Blocking) -> int:
    """Pairs of tiles of an image and channel."""
    (_, height, width), (tile_y, tile_x) = q.output_size(p.size), b.outputs
    across = -(-width // (2 * tile_x))
    return height * -(-across // _native.fourier_lanes(p.compute)) if b.pieces else -(-height // tile_y) * across


def direct_cost(p: Problem) -> float:
    """The same of plain sums."""
    return plain_sums(p) * p.machine.element / 4 / PEAK


@lru_cache(maxsize=1024)
def cheapest(p: Problem) -> str | None:
    """The variant of the least cost; None where no tile can be laid."""
    most: tuple[float, str | None] = (inf, None)
    plain = p._replace(wish="auto")
    for name, samples in SAMPLES.items():
        if METHOD.why_not(plain, name) is None:
            most = min(most, (cost(p, samples), name), key=lambda one: one[0])
    return most[1]


METHOD = Fourier()
