"""Direct convolution: always applies, and is what every other method is measured by (drivers/direct.pxi).

After Zhang, Franchetti and Low, "High Performance Zero-Memory Overhead Direct Convolutions", ICML 2018.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any, ClassVar

from ... import _native
from .. import special
from ..operands import Operands
from ..passes import Pass, Triple, terms, triple, useful_taps
from ..problem import Problem
from .direct_blocking import FEW, FEW_TAPS, IN_PLACE, PLANES, SOURCES
from .direct_merged import merged
from .direct_native import native_program, run_native, scaling_program, threads_worth
from .direct_scattered import scattered
from .exchange import alternatives
from .method import (
    LONG_SUM,
    Array,
    Before,
    Bound,
    Direction,
    GradientProgram,
    Offer,
    Packed,
    Program,
    Sums,
    Told,
    packed_bytes,
    packs_first,
    panels,
    products,
    sum_bound,
)
from .weight_gradient import DirectGradient


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


class DirectProgram(Program):
    """Passes of the direct driver, all in one step into native code."""

    merges = True  # what lies side by side in a panel of few outputs

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
        self.few_taps = s.held and self.native.few_taps() > 0
        self.merged = merged(s) if p and self.merges and not self.few_taps else None
        self.scattered = scattered(p) if p and self.merges else None
        self.plain = not (self.point or self.exchanged or self.merged or self.packs or self.scattered)
        self.single = len(s.passes) == 1
        self.adds_in_place = self.covers and self.merged is None and self.native.adds_in_place()
        self.scaling: _native.Direct | None = None  # made when it is first asked for
        self.scales = self.covers and self.merged is None and self.native.scales()
        self.reads_once = p is not None and self.native.point() and self.packs and not (self.point or self.exchanged)
        self.apart = [self.native] if self.single else []  # made when weights are packed for several passes

    def native_program(self, s: Sums) -> _native.Direct:
        """All passes of a problem, with the weights as they lie in memory."""
        return native_program(s)

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        """Panels of every pass and, behind them, those of merged ones."""
        own = tuple(panels(self.sums, q, weight) for q in self.sums.passes)
        return (*own, *self.merged.pack(weight)) if self.merged else own

    def run(
        self, x: Array, weight: Array, packed: tuple[Packed, ...] | None, bias: Array | None, residual: Array | None,
        out: Array, activation: int, channels_last: bool,
    ) -> None:  # fmt: skip
        if packed is not None and self.merged:
            self._held(Operands(x, weight, None, bias, residual, out, activation, channels_last), packed)
        elif packed is None and (self.plain or self._reads_once(x, weight, bias, residual, out, activation)):
            self.native.run(x, weight, None, bias, residual, out, activation, channels_last, self.threads)
        elif packed is not None and self.few_taps:
            self.native.run(x, weight, packed, bias, residual, out, activation, channels_last, self.threads)
        elif packed is not None and self.single:
            self.native.run(x, weight, packed[0], bias, residual, out, activation, channels_last, self.threads)
        elif packed is not None:
            for native, own in zip(self._apart(), packed, strict=True):
                native.run(x, weight, own, bias, residual, out, activation, channels_last, self.threads)
        else:
            self._otherwise(Operands(x, weight, None, bias, residual, out, activation, channels_last))

    def scaled(self, a: Operands, before: Before) -> None:
        if self.scaling is None:
            self.scaling = scaling_program(self.sums)
        assert self.scaling is not None  # as `scales` says
        self.scaling.run_scaled(
            a.x, *before, a.weight, a.packed, a.bias, a.residual, a.out, a.activation, self.threads
        )  # fmt: skip

    def _reads_once(
        self, x: Array, weight: Array, bias: Array | None, residual: Array | None, out: Array, activation: int
    ) -> bool:
        """Whether the weights of a single pixel are read as they lie (drivers/point.pxi), in the logical axis order."""
        return (
            self.reads_once and len(out) == 1 and bias is None and residual is None and not activation
            and x.size == self.sums.channels and weight.dtype == x.dtype
            and weight.strides[0 if self.sums.transposed else 1] == weight.itemsize
            and weight.strides[1 if self.sums.transposed else 0] >= self.sums.channels * weight.itemsize
            and x.strides[1] == out.strides[1] == x.itemsize
        )  # fmt: skip

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
        elif self.scattered and self.scattered.run(a):
            return
        elif self.packs and not (self.streams and special.all_finite(a.weight)):
            for native, q in zip(self._apart(), self.sums.passes, strict=True):
                run_native(native, a._replace(packed=panels(self.sums, q, a.logical().weight)), self.threads)
        elif self.merged:
            a = a.logical()
            for n in self.merged.run(a):
                run_native(self.native, a.images(slice(n, n + 1)), self.threads)
        else:
            run_native(self.native, a, self.threads)

    def _held(self, a: Operands, packed: tuple[Packed, ...]) -> None:
        """Of weights packed for merged passes, too."""
        assert self.merged is not None
        a = a.logical()
        count = len(self.sums.passes)
        again = self.merged.run(a, packed[count:])
        for part in [a] if len(again) == a.batch else [a.images(slice(n, n + 1)) for n in again]:
            for native, own in zip(self._apart(), packed[:count], strict=True):
                run_native(native, part._replace(packed=own), self.threads)

    def products(self, lies: bool = False) -> int:
        """Multiply-adds of a run of the planned batch; `lies`: of an input that may be read in place."""
        return products(self.sums, [self.native.blocking(i, lies)[2] for i in range(len(self.sums.passes))])

    def need(self, prepared: bool) -> int:
        packs = prepared or (self.packs and not self.streams)
        natives = [self.native, *([self.merged.native] if self.merged else ())] if self.sums.passes else []
        most = max((one.scratch_bytes(packs, lies) for one in natives for lies in (False, True)), default=0)
        others = [one.program.need(False) for one in (self.point, self.exchanged) if one and not prepared]
        if self.scattered and not prepared:
            others.append(self.scattered.need())
        return max(most * self.threads, *others, 0)

    def told(self, channels_last: bool, prepared: bool) -> Told:
        if self.scattered and not prepared and not (self.point or self.exchanged):
            return self.scattered.told(channels_last)
        s, m = self.sums, self.sums.machine
        team = threads_worth(s, *s.passes) if s.passes else 1
        lies = channels_last and s.read_in_place
        done = self.products(lies)
        if self.exchanged and not prepared:
            done = s.groups * self.exchanged.program.products()
        source, images, tile, reduction, tasks, scratch, packed = IN_PLACE, 1, (0, 0, 0), 0, 0, 0, 0  # of nothing
        if s.passes:
            packs = prepared or (self.packs and not self.streams)
            otherwise = self.point or self.exchanged or (packs and not prepared)
            native = self.merged.native if self.merged and not otherwise else self.native
            source, images, edges, reduction, tasks = native.blocking(0, lies)
            if self.merged and native is self.merged.native:
                tasks = self.merged.tasks(lies)
            tile = triple([max(end - first for first, end in pairwise(cut)) for cut in edges])
            scratch = native.scratch_bytes(packs, lies)
            packed = sum(packed_bytes(s, prod(q.counts)) for q in s.passes) if packs else 0
            if self.merged and prepared:
                packed += self.merged.packed_bytes
        planes = 0 if channels_last or self.merged else self.native.planes()
        few = channels_last and not (self.merged or self.point or self.exchanged) and self.native.few()
        few_taps = self.native.few_taps() if prepared and self.few_taps else 0
        if prepared and not (few_taps or channels_last or self.merged):
            few_taps = self.native.shifted(max(1, s.images), team)
        scratch = few_taps or (0 if few and prepared else planes or scratch)
        return Told(
            tile=tile, block=f"{reduction} reduction steps", register_tile=(m.rows, m.width),
            source=FEW_TAPS if few_taps else PLANES if planes else FEW if few else SOURCES[source],
            workspace_bytes=scratch * _native.team_for(team, -(-s.images // images) * tasks, scratch),
            packed_weight_bytes=packed, multiplications=done, threads=team,
        )  # fmt: skip


def rows_of_a_pass(p: Problem, q: Pass, a: Operands) -> None:
    """The outputs of one pass alone, all that `a` holds, with what it holds of packed weights."""
    shape = a.logical()
    own = q._replace(phase=(0, 0, 0), step=(1, 1, 1))
    sums = Sums.of(p)._replace(
        passes=(own,), size=shape.size, input_size=shape._replace(out=shape.x).size, images=shape.batch
    )
    run_native(native_program(sums), a, p.machine.threads)


METHOD = Direct()
