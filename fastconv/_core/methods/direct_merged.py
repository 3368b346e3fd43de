"""Outputs of few channels side by side in the lanes of a panel: phases of an input gradient, and neighbouring pixels.

So many neighbours along each axis are phases of a convolution of their number times the stride. One pass computes all
phases: a phase meets all taps that any of them has, and its weights are zero at those of others. What is not finite
must not meet those zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np

from ..operands import Operands
from ..passes import AXES, Pass, Triple, terms, triple
from ..problem import Machine
from .direct_blocking import tuned
from .direct_native import native_program
from .method import LONG_SUM, Array, Packed, Sums, packed_bytes, panels

MOST_ALONG = 16  # neighbours along an axis


class Merged:
    """The passes of `s`, each split into as many as `apart` neighbours, `beside` of them along the rows in a pass: all
    where None."""

    def __init__(self, s: Sums, apart: Triple, beside: int | None = None) -> None:
        self.passes = [split for q in s.passes for split in neighbours(q, apart)]
        self.transposed, (first, *_) = s.transposed, self.passes
        self.beside = beside or first.step[2]
        self.groups = [
            [q for q in self.passes if q.phase[2] // self.beside == group]
            for group in range(first.step[2] // self.beside)
        ]  # fmt: skip
        self.ones: list[Pass] = []
        columns = 0  # of the weights of all groups, one group behind the other
        for group in self.groups:
            taps = triple([tuple(sorted({tap for q in group for tap in q.taps[axis]})) for axis in AXES])
            z, y, x = map(len, taps)
            places = (tuple(range(z)), tuple(range(y)), tuple(range(columns, columns + x)))
            merge = (*first.step[:2], self.beside)
            self.ones.append(Pass(taps, places, first.stride, (0, 0, group[0].phase[2]), first.step, merge))
            columns += x
        self.columns = columns
        # the weights are given with the reduction first
        self.sums = s._replace(
            passes=tuple(self.ones), outputs=s.outputs * len(self.groups[0]), transposed=True,
            terms=max(terms(q, s.channels) for q in s.passes),
        )  # fmt: skip
        self.native = native_program(self.sums)
        self.threads = s.machine.threads

    @property
    def packed_bytes(self) -> int:
        """Of the weights."""
        return sum(packed_bytes(self.sums, prod(one.counts)) for one in self.ones)

    def tasks(self, lies: bool) -> int:
        """Of so many images as share a tile."""
        return sum(self.native.blocking(i, lies)[4] for i in range(len(self.ones)))

    def pack(self, weight: Array) -> tuple[Packed, ...]:
        """The weights (logical axis order) in panels, of every pass."""
        own = self._weights(weight)
        return tuple(panels(self.sums, one, own) for one in self.ones)

    def run(self, a: Operands, packed: tuple[Packed, ...] | None = None) -> list[int]:
        """All phases; the images where an infinity or NaN may have met another phase's zeros, which are to be done
        again."""
        weight = a.weight if packed else self._weights(a.weight)
        flags = self.native.run(
            a.x, weight, packed, a.bias, a.residual, a.out, a.activation, a.channels_last, self.threads
        )
        return [n for n, flag in enumerate(flags or ()) if flag]

    def _weights(self, weight: Array) -> Array:
        """Those of all phases side by side, (reduction, phases x outputs, *taps), zero where a phase has no tap."""
        weight = weight if self.transposed else weight.swapaxes(0, 1)
        reduction, outputs, axes = *weight.shape[:2], weight.ndim - 2
        (merge, (z, y, _)) = self.ones[0].merge, self.ones[0].counts
        together = np.zeros((reduction, *merge, outputs, z, y, self.columns), weight.dtype)
        whole = weight.reshape(reduction, outputs, *(1,) * (3 - axes), *weight.shape[2:])
        for one, group in zip(self.ones, self.groups, strict=True):
            for q in group:
                at = [tuple(one.places[a][one.taps[a].index(tap)] for tap in q.taps[a]) for a in AXES]
                phase = together[:, q.phase[0], q.phase[1], q.phase[2] % self.beside]
                phase[_at(phase, triple(at))] = whole[_at(whole, q.places)]
        return together.reshape(reduction, prod(merge) * outputs, *(z, y, self.columns)[3 - axes :])


def _at(weight: Array, places: tuple[tuple[int, ...], ...]) -> Any:
    """The index of the taps at these places: of slices, where they lie evenly."""
    slices = [slice(None), slice(None)]
    for own in places:
        step = own[1] - own[0] if len(own) > 1 else 1
        if step == 0 or own != tuple(range(own[0], own[0] + step * len(own), step)):
            return np.ix_(*map(range, weight.shape[:2]), *places)
        end = own[-1] + (1 if step > 0 else -1)
        slices.append(slice(own[0], end if end >= 0 else None, step))
    return tuple(slices)


def neighbours(q: Pass, apart: Triple) -> Iterator[Pass]:
    """A pass as so many along each axis: the first of so many neighbouring outputs, the second, and so on."""
    for place in product(*map(range, apart)):
        yield q._replace(
            taps=triple([tuple(tap + place[a] * q.stride[a] for tap in q.taps[a]) for a in AXES]),
            stride=triple([q.stride[a] * apart[a] for a in AXES]),
            phase=triple([q.phase[a] + q.step[a] * place[a] for a in AXES]),
            step=triple([q.step[a] * apart[a] for a in AXES]),
        )


def merged(s: Sums) -> Merged | None:
    """Where fewer vectors of outputs are computed so."""
    found = _fewer(s)
    return Merged(s, *found[1:]) if found else None


def saving(s: Sums) -> float:
    """The share of the vectors that is left; 1 where nothing merges."""
    found = _fewer(s)
    return found[0] if found else 1.0


def vectors_met(s: Sums) -> float:
    """Vectors that are multiplied for an output and channel."""
    return _met_apart(s) * saving(s)


def _met_apart(s: Sums) -> float:
    """The same of passes apart."""
    return sum(prod(q.counts) for q in s.passes) * -(-s.outputs // s.machine.lanes) / prod(s.passes[0].step)


def _fewer(s: Sums) -> tuple[float, Triple, int | None] | None:
    """(The share of the vectors that is left, neighbours along each axis, phases of a row in a panel). A long sum is
    cut by its taps, which neighbours would meet at other places: phases of it merge, neighbours do not."""
    m = s.machine
    step = s.passes[0].step if s.passes else (1, 1, 1)
    if s.groups != 1 or s.mode or 0 in (s.outputs, s.channels) or len(s.passes) != prod(step):
        return None
    if not all(q.counts[a] for q in s.passes for a in AXES) or 2 * s.outputs > m.width:
        return None
    long = any(terms(q, s.channels) >= LONG_SUM for q in s.passes)
    taps = triple([tuple(dict.fromkeys(q.taps[a] for q in s.passes)) for a in AXES])
    beside = None
    if prod(step) * s.outputs > m.width:
        (best, beside), apart = _groups(s, step), (1, 1, 1)
    else:
        best, apart = _least(m, taps, s.passes[0].stride, step, s.outputs, 1 if long else MOST_ALONG)
    own = _met_apart(s)
    if apart == step == (1, 1, 1) or best > tuned(m).merging_gain * own:
        return None
    saved = (own - best) * s.channels * prod(s.size) * max(1, s.images)
    if not s.held and step == (1, 1, 1) and saved < tuned(m).merging:
        return None
    return best / own, apart, beside


def _groups(s: Sums, step: Triple) -> tuple[float, int]:
    """(Vectors that are multiplied for an output and channel, phases of a row in a panel) where no panel takes all."""
    m = s.machine
    room = m.width // (s.outputs * step[0] * step[1])
    beside = max((n for n in range(2, min(room, step[2]) + 1) if step[2] % n == 0), default=0)
    if not beside:
        return np.inf, 0
    groups = [[q for q in s.passes if q.phase[2] // beside == group] for group in range(step[2] // beside)]
    met = sum(prod(len({tap for q in group for tap in q.taps[a]}) for a in AXES) for group in groups)
    return met * -(-step[0] * step[1] * beside * s.outputs // m.lanes) / prod(step), beside


@lru_cache(maxsize=256)
def _least(
    m: Machine, taps: tuple[tuple[tuple[int, ...], ...], ...], stride: Triple, step: Triple, outputs: int, longest: int
) -> tuple[float, Triple]:  # fmt: skip
    """(Vectors that are multiplied for an output and channel, neighbours along each axis): the fewest, of few, up to
    the `longest` along an axis."""
    most = m.width // (outputs * prod(step))
    along = [range(1, min(most, longest) + 1) if any(len(own) > 1 for own in taps[a]) else (1,) for a in AXES]
    union = [
        {n: len({tap + i * stride[a] for own in taps[a] for tap in own for i in range(n)}) for n in along[a]}
        for a in AXES
    ]
    best: tuple[float, Triple] = np.inf, (1, 1, 1)
    for z, y, x in product(*along):
        apart = z, y, x
        phases = prod(apart) * prod(step)
        if phases * outputs <= m.width:
            met = prod(union[a][apart[a]] for a in AXES)
            best = min(best, (met * -(-phases * outputs // m.lanes) / phases, apart))
    return best
