"""The input gradient at a large stride of few channels: a product for every tap, laid over each other.

Every pixel of grad_output times all taps is one product of matrices, whose outputs, taps x channels, fill the vectors;
those of a row of taps are neighbours in the result, where they are added up (drivers/scattered.pxi), pixel after pixel,
however many are multiplied at a time.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ... import _native
from ..operands import Operands
from ..passes import AXES, Pass
from ..problem import Problem
from .direct_merged import saving, vectors_met
from .method import Array, Sums, Told, split

if TYPE_CHECKING:
    from .direct import DirectProgram

# In multiply-adds of a vector (Zen 4): one of phases side by side, of few vectors and from a packed region; what a row
# of taps lays down for a pixel.
BESIDE, LAID = 1.5, 40
MOST_LAID = 256  # products over each other, of which each is a sum: as many terms as blocks of a long sum have
MOST_BYTES = 4 << 20  # of products at a time: lines of pixels of an image, at least one, or images


class Scattered:
    """A single run, in pieces whose products stay in cache: lines of pixels along the first axis that has several."""

    def __init__(self, p: Problem, s: Sums) -> None:
        self.geometry, size = p.geometry, s.input_size
        self.sums = s._replace(
            passes=(Pass(((0,), (0,), (0,)), ((0,), (0,), (0,)), (1, 1, 1)),), transposed=False,
            outputs=p.outputs * prod(p.geometry.kernel_size), size=size,
        )  # fmt: skip
        self.axis = next((axis for axis in AXES if size[axis] > 1), AXES[-1])
        self.line_bytes = prod(size) // size[self.axis] * self.sums.outputs * s.machine.element
        self.lines = split(size[self.axis], MOST_BYTES // self.line_bytes)
        self.programs = {n: self._lines(n) for n in {self.lines, size[self.axis] % self.lines} if n}

    def _lines(self, count: int) -> DirectProgram:
        """The products of so many lines."""
        from .direct import DirectProgram

        z, y, x = (count if axis == self.axis else n for axis, n in enumerate(self.sums.size))
        return DirectProgram(self.sums._replace(size=(z, y, x), input_size=(z, y, x)))

    def need(self) -> int:
        """Memory of a run of any batch."""
        return max(one.need(False) for one in self.programs.values()) + max(MOST_BYTES, self.lines * self.line_bytes)

    def told(self, channels_last: bool) -> Told:
        """What `explain` shows."""
        own = self.programs[self.lines].told(channels_last, False)
        return own._replace(
            workspace_bytes=own.workspace_bytes + self.lines * self.line_bytes,
            remark=f"products of all {prod(self.geometry.kernel_size)} taps at once, laid over each other",
        )

    def run(self, a: Operands) -> bool:
        """False where more than the gradient is asked for."""
        a = a.logical()
        if a.bias is not None or a.residual is not None or a.activation:
            return False
        axes, all_lines = a.x.ndim - 2, self.sums.size[self.axis]
        taps = (*range(2, 2 + axes), 1, 0)
        weight = a.weight.transpose(taps).reshape(-1, len(a.weight), *(1,) * axes)
        count = max(1, MOST_BYTES // (self.lines * self.line_bytes)) if self.lines == all_lines else 1
        for first in range(0, len(a.x), count):
            own = slice(first, first + count)
            self._images(a.x[own], weight, a.out[own])
        return True

    def _images(self, x: Array, weight: Array, out: Array) -> None:
        channels, element, axes, lines = out.shape[1], out.itemsize, x.ndim - 2, self.sums.size[self.axis]
        # channels side by side, and pixels of a row
        lies = channels * element == out.strides[-1] and (channels == 1 or out.strides[1] == element)
        to = out if lies else np.moveaxis(np.empty((len(x), *out.shape[2:], channels), out.dtype), -1, 1)
        g, m, at = self.geometry, self.sums.machine, 2 + self.axis - (3 - axes)
        room = np.empty(len(x) * self.lines * self.line_bytes // element, out.dtype)
        for first in range(0, lines, self.lines):
            own = x[(slice(None),) * at + (slice(first, first + self.lines),)]
            shape = len(x), *own.shape[2:], len(weight)
            products = np.moveaxis(room[: prod(shape)].reshape(shape), -1, 1)
            self.programs[own.shape[at]].run(own, weight, None, None, None, products, 0, False)
            pads = [before - (axis == self.axis) * first * step for axis, ((before, _), step) in enumerate(
                zip(g.padding, g.stride, strict=True)
            )]  # fmt: skip
            _native.lay_over(m.compute, products, to, g.kernel_size, g.stride, pads, first > 0, m.threads)
        if to is not out:
            out[...] = to


def scattered(p: Problem) -> Scattered | None:
    """Where it saves vectors; by the kernel's shape alone, so that pieces of an image have the bits of the whole."""
    g, s = p.geometry, Sums.of(p)
    if (
        not p.transposed or p.held or p.mode or p.groups != 1 or p.machine.capped or p.types.rounded
        or not s.passes or 0 in (p.channels, p.outputs, *p.size, *p.input_size)
        or prod(g.stride) == 1 or set(g.dilation) != {1} or any(before < 0 for before, _ in g.padding)
        or len({p.types.input, p.types.weight, p.types.result}) != 1 or p.types.result not in (np.float32, np.float64)
        or prod(-(-taps // step) for taps, step in zip(g.kernel_size, g.stride, strict=True)) > MOST_LAID
    ):
        return None
    own = -(-p.outputs * prod(g.kernel_size) // p.machine.lanes) / prod(g.stride)
    beside = vectors_met(s) * (BESIDE if saving(s) < 1 else 1)
    taps = prod(g.kernel_size)
    if taps == prod(g.stride) or (beside - own) * p.channels < LAID * taps / g.kernel_size[2] / prod(g.stride):
        return None
    return Scattered(p, s)
