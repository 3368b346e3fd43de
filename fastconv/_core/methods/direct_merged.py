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

from .. import special
from ..operands import Operands
from ..passes import AXES, Pass, Triple, terms, triple
from ..problem import Machine
from .direct_blocking import tuned
from .direct_native import native_program, run_native
from .method import LONG_SUM, Array, Packed, Sums, packed_bytes, panels

MOST_ALONG = 16  # neighbours along an axis


class Merged:
    """The passes of `s`, each split into as many as `apart` neighbours, as one."""

    def __init__(self, s: Sums, apart: Triple) -> None:
        self.passes = [split for q in s.passes for split in neighbours(q, apart)]
        self.transposed, step = s.transposed, self.passes[0].step
        taps = triple([tuple(sorted({tap for q in self.passes for tap in q.taps[axis]})) for axis in AXES])
        places = triple([tuple(range(len(own))) for own in taps])
        self.one = Pass(taps, places, self.passes[0].stride, (0, 0, 0), step, step)
        self.kernel = self._kernel()
        # the weights are given with the reduction first
        self.sums = s._replace(
            passes=(self.one,), outputs=s.outputs * len(self.passes), transposed=True,
            terms=max(terms(q, s.channels) for q in s.passes),
        )  # fmt: skip
        self.native = native_program(self.sums)
        self.threads = s.machine.threads

    @property
    def packed_bytes(self) -> int:
        """Of the weights."""
        return packed_bytes(self.sums, prod(self.one.counts))

    def pack(self, weight: Array) -> Packed:
        """The weights (logical axis order) in panels."""
        return panels(self.sums, self.one, self._weights(weight))

    def run(self, a: Operands, packed: Packed | None = None) -> list[int]:
        """All phases; the images where an infinity or NaN may have met another phase's zeros, which are to be done
        again."""
        weight = a.weight if packed else self._weights(a.weight)
        run_native(self.native, a._replace(weight=weight, packed=packed), self.threads)
        return list(special.images_with_nan(a.out))

    def _kernel(self) -> list[Array]:
        """For every axis where a tap of a phase lies in the kernel, (phases along it, taps); -1 where it has none."""
        kernel = [np.full((self.one.merge[a], self.one.counts[a]), -1) for a in AXES]
        for q in self.passes:
            for a in AXES:
                at = [self.one.taps[a].index(tap) for tap in q.taps[a]]
                kernel[a][q.phase[a], at] = q.places[a]
        return kernel

    def _weights(self, weight: Array) -> Array:
        """Those of all phases side by side, (reduction, phases x outputs, *taps), zero where a phase has no tap."""
        weight = weight if self.transposed else weight.swapaxes(0, 1)
        reduction, outputs, axes = *weight.shape[:2], weight.ndim - 2
        taken = np.zeros((reduction, outputs, *(n + 1 for n in weight.shape[2:])), weight.dtype)
        inside: tuple[Any, ...] = (..., *(slice(-1) for _ in range(axes)))
        taken[inside] = weight  # behind it lies what a phase without the tap takes
        for a in range(axes):
            taken = taken.take(self.kernel[3 - axes + a], axis=2 + 2 * a)
        order = (0, *range(2, 2 + 2 * axes, 2), 1, *range(3, 2 + 2 * axes, 2))
        return taken.transpose(order).reshape(reduction, len(self.passes) * outputs, *self.one.counts[3 - axes :])


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
    """Where fewer vectors of outputs are computed so. A long sum is cut by its taps, which neighbours would meet at
    other places: phases of it merge, neighbours do not."""
    m = s.machine
    step = s.passes[0].step if s.passes else (1, 1, 1)
    if s.groups != 1 or s.mode or 0 in (s.outputs, s.channels) or len(s.passes) != prod(step):
        return None
    if not all(q.counts[a] for q in s.passes for a in AXES) or 2 * s.outputs > m.width:
        return None
    long = any(terms(q, s.channels) >= LONG_SUM for q in s.passes)
    taps = triple([tuple(dict.fromkeys(q.taps[a] for q in s.passes)) for a in AXES])
    best, apart = _least(m, taps, s.passes[0].stride, step, s.outputs, 1 if long else MOST_ALONG)
    own = sum(prod(q.counts) for q in s.passes) * -(-s.outputs // m.lanes) / prod(step)
    if apart == step == (1, 1, 1) or best > tuned(m).merging_gain * own:
        return None
    saved = (own - best) * s.channels * prod(s.size) * max(1, s.images)
    if not s.held and step == (1, 1, 1) and saved < tuned(m).merging:
        return None
    return Merged(s, apart)


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
