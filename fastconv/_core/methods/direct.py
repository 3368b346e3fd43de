"""Direct convolution: always applies, and is what every other method is measured by (drivers/direct.pxi).

After Zhang, Franchetti and Low, "High Performance Zero-Memory Overhead Direct Convolutions", ICML 2018.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any, ClassVar

import numpy as np

from ... import _native
from .. import special
from ..operands import Operands
from ..passes import AXES, Pass, Triple, even_edges, terms, triple, useful_taps
from ..problem import Problem
from ..types import codes
from .direct_blocking import IN_PLACE, SOURCES, Blocking, blocking, tuned
from .exchange import alternatives
from .method import (
    LONG_SUM,
    Array,
    Bound,
    Direction,
    GradientProgram,
    Offer,
    Packed,
    Program,
    Sums,
    Told,
    most_panel_bytes,
    packed_bytes,
    packs_first,
    panel_bytes,
    panels,
    products,
    sum_bound,
)
from .weight_gradient import DirectGradient

STREAMED_TILES = 4  # that pack the same weights again


class Direct:
    """The method."""

    word, title, variants = "direct", "Direct convolution", ("",)
    halves, rounds = "", True
    former: ClassVar[dict[str, str]] = {}

    def why_not(self, p: Problem, variant: str | None = None) -> str | None:
        return None

    def offer(self, p: Problem) -> Offer:
        return Offer("", True, "")

    def program(self, p: Problem, variant: str) -> Program:
        from .direct_bytes import exact_bytes  # which is made of this module

        return exact_bytes(p) or DirectProgram(Sums.of(p), p)

    def gradient_program(self, p: Problem, variant: str) -> GradientProgram:
        return DirectGradient(p)

    def grain(self, p: Problem, variant: str) -> Triple:
        return 1, 1, 1

    def bound(self, p: Problem, variant: str) -> Bound:
        return sum_bound(p)

    def example(self, case: Any, variant: str, direction: Direction) -> Any:
        """As it is: every problem is one."""
        return case


def merged_phases(s: Sums) -> Pass | None:
    """One pass for all phases of few outputs, side by side in the lanes of a panel; None where that saves nothing.

    A phase meets all taps that any phase has; its weights are zero at those of others (`_merged_weights`). Its kernel
    is numbered anew. What is not finite must not meet those zeros.
    """
    passes, m = s.passes, s.machine
    step = passes[0].step if passes else (1, 1, 1)
    if s.groups != 1 or len(passes) < 2 or len(passes) != prod(step) or len(passes) * s.outputs > m.width:
        return None
    taps = [tuple(sorted({tap for q in passes for tap in q.taps[axis]})) for axis in AXES]
    if not all(taps):  # padding alone
        return None
    apart = sum(prod(q.counts) for q in passes) * -(-s.outputs // m.lanes)
    if prod(map(len, taps)) * -(-len(passes) * s.outputs // m.lanes) > tuned(m).merging_gain * apart:
        return None
    places = triple([tuple(range(len(own))) for own in taps])
    return Pass(triple(taps), places, (1, 1, 1), (0, 0, 0), step, step)


def _merged_weights(merged: Pass, passes: tuple[Pass, ...], weight: Array) -> Array:
    """The weights of an input gradient's phases side by side, (O, phases x I, *taps), zero where a phase has no tap."""
    reduction, outputs, axes = *weight.shape[:2], weight.ndim - 2
    together = np.zeros((reduction, *merged.merge, outputs, *merged.counts), weight.dtype)
    whole = weight.reshape(reduction, outputs, *(1,) * (3 - axes), *weight.shape[2:])
    for q in passes:
        at = [[merged.taps[a].index(tap) for tap in q.taps[a]] for a in AXES]
        own = whole[np.ix_(range(reduction), range(outputs), *q.places)]
        together[:, q.phase[0], q.phase[1], q.phase[2]][np.ix_(range(reduction), range(outputs), *at)] = own
    return together.reshape(reduction, len(passes) * outputs, *merged.counts[3 - axes :])


def _reads_in_place(s: Sums, q: Pass) -> bool:
    """One tap and nothing padded."""
    return prod(q.counts) == 1 and all(
        tap[0] >= 0 and tap[0] + (count - 1) * stride < extent
        for tap, count, stride, extent in zip(q.taps, q.output_size(s.size), q.stride, s.input_size, strict=True)
    )


def _blocking(s: Sums, q: Pass, in_place: bool) -> Blocking:
    """Loop sizes of a pass, for the threads that its arithmetic is worth."""
    own = q.output_size(s.size)
    macs = max(1, s.images) * prod(own) * s.channels * s.outputs * s.groups * prod(q.counts)
    b = blocking(s, q, _native.threads_for(macs, s.machine.threads), in_place)
    edges = b.edges or [even_edges(n, tile) for n, tile in zip(own, b.tile, strict=True)]
    tiles = -(-s.images // b.images) * prod(len(cut) - 1 for cut in edges)
    # so large a panel may serve so few tiles that it is not worth its memory
    streams = b.source != IN_PLACE and tiles <= STREAMED_TILES and panel_bytes(s, q) > most_panel_bytes(s)
    return b._replace(streams=streams)


def native_program(s: Sums, result: int | None = None) -> _native.Direct:
    """All passes in native form, each with the way to read its input in place, where it could; `result` is the fc_dtype
    of what is made of the sums."""
    ways = [_blocking(s, q, True) if _reads_in_place(s, q) else None for q in s.passes]
    numbers = codes(s.types)._replace(compute=s.compute)
    if result is not None:
        numbers = numbers._replace(result=result)
    return _native.Direct(numbers, s, s.passes, [_blocking(s, q, False) for q in s.passes], ways, s.transposed)


class DirectProgram(Program):
    """Passes of the direct driver, all in one step into native code."""

    def __init__(self, s: Sums, p: Problem | None = None) -> None:
        if not s.mode:  # where the blocks of long sums begin must not depend on the image
            s = s._replace(passes=tuple(
                q if terms(q, s.channels) >= LONG_SUM else useful_taps(q, s.size, s.input_size) for q in s.passes
            ))  # fmt: skip
        self.sums, self.problem, self.threads = s, p, s.machine.threads
        self.native = self.native_program(s)
        self.covers = s.covers
        self.packs = packs_first(s)
        self.streams = bool(s.passes) and self.native.streams()
        self.point, self.exchanged, self.whole = alternatives(p, s.passes) if p else (None, None, False)
        self.merged = merged_phases(s) if s.transposed else None
        if self.merged:
            self.together = native_program(
                s._replace(passes=(self.merged,), outputs=s.outputs * len(s.passes))
            )
        self.plain = not (self.point or self.exchanged or self.merged or self.packs)
        self.single = len(s.passes) == 1
        self.apart = [self.native] if self.single else []  # made when weights are packed for several passes

    def native_program(self, s: Sums) -> _native.Direct:
        """All passes of a problem, with the weights as they lie in memory."""
        return native_program(s)

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        return tuple(panels(self.sums, q, weight) for q in self.sums.passes)

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        if packed is None and self.plain:
            self.native.run(x, weight, None, bias, residual, out, activation, channels_last, self.threads)
        elif packed is not None and self.single:
            self.native.run(x, weight, packed[0], bias, residual, out, activation, channels_last, self.threads)
        elif packed is not None:
            for native, own in zip(self._apart(), packed, strict=True):
                native.run(x, weight, own, bias, residual, out, activation, channels_last, self.threads)
        else:
            self._otherwise(Operands(x, weight, None, bias, residual, out, activation, channels_last))

    def _apart(self) -> list[_native.Direct]:
        """Each pass by itself, as its weights are packed by themselves."""
        if len(self.apart) != len(self.sums.passes):
            self.apart = [self.native.alone(i) for i in range(len(self.sums.passes))]
        return self.apart

    def _otherwise(self, a: Operands) -> None:
        """Of weights as they lie, packed panel by panel on the way unless a panel is too large for that."""
        if self.point and self.point.run(a):
            return
        if self.exchanged and self.exchanged.takes(a.x, a.bias, a.residual):
            self.exchanged.run(a)
        elif self.packs and not (self.streams and special.all_finite(a.weight)):
            for native, q in zip(self._apart(), self.sums.passes, strict=True):
                run_native(native, a._replace(packed=panels(self.sums, q, a.logical().weight)), self.threads)
        elif self.merged and a.residual is None:
            self._run_merged(self.merged, a.logical())
        else:
            run_native(self.native, a, self.threads)

    def _run_merged(self, merged: Pass, a: Operands) -> None:
        """All phases in one pass; an image where an infinity or NaN may have met another phase's zeros, apart."""
        weight = _merged_weights(merged, self.sums.passes, a.weight)
        run_native(self.together, a._replace(weight=weight), self.threads)
        for n in special.images_with_nan(a.out):
            run_native(self.native, a.images(slice(n, n + 1)), self.threads)

    def products(self) -> int:
        """Multiply-adds of a run of the planned batch."""
        return products(self.sums, [self.native.blocking(i)[2] for i in range(len(self.sums.passes))])

    def need(self, prepared: bool) -> int:
        packs = prepared or (self.packs and not self.streams)
        natives = [self.native, *([self.together] if self.merged and not prepared else ())] if self.sums.passes else []
        most = max((one.scratch_bytes(packs, lies) for one in natives for lies in (False, True)), default=0)
        others = [one.program.need(False) for one in (self.point, self.exchanged) if one and not prepared]
        return max(most * self.threads, *others, 0)

    def told(self, channels_last: bool, prepared: bool) -> Told:
        s, m = self.sums, self.sums.machine
        team = _native.threads_for(self.problem.macs if self.problem else 0, m.threads)
        done = self.products()
        if self.exchanged and not prepared:
            done = s.groups * self.exchanged.program.products()
        source, images, tile, reduction, tasks, scratch, packed = IN_PLACE, 1, (0, 0, 0), 0, 0, 0, 0  # of nothing
        if s.passes:
            lies = channels_last and s.read_in_place
            source, images, edges, reduction, tasks = self.native.blocking(0, lies)
            tile = triple([max(end - first for first, end in pairwise(cut)) for cut in edges])
            packs = prepared or (self.packs and not self.streams)
            scratch = self.native.scratch_bytes(packs, lies)
            packed = sum(packed_bytes(s, prod(q.counts)) for q in s.passes) if packs else 0
        return Told(
            tile=tile, block=f"{reduction} reduction steps", register_tile=(m.rows, m.width), source=SOURCES[source],
            workspace_bytes=scratch * _native.team_for(team, -(-s.images // images) * tasks, scratch),
            packed_weight_bytes=packed, multiplications=done, threads=team,
        )  # fmt: skip


def run_native(native: _native.Direct, a: Operands, threads: int) -> None:
    """The arrays to native code."""
    native.run(a.x, a.weight, a.packed, a.bias, a.residual, a.out, a.activation, a.channels_last, threads)


def rows_of_a_pass(p: Problem, q: Pass, a: Operands) -> None:
    """The outputs of one pass alone, all that `a` holds, with what it holds of packed weights."""
    shape = a.logical()
    own = q._replace(phase=(0, 0, 0), step=(1, 1, 1))
    sums = Sums.of(p)._replace(
        passes=(own,), size=shape.size, input_size=shape._replace(out=shape.x).size, images=shape.batch
    )
    run_native(native_program(sums), a, p.machine.threads)


METHOD = Direct()
