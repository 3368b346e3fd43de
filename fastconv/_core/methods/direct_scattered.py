"""The input gradient at a large stride of few channels: a product for every tap, laid over each other.

Every pixel of grad_output times all taps is one product of matrices, whose outputs, taps x channels, fill the vectors;
those of a row of taps are neighbours in the result, where they are added up (drivers/scattered.pxi).
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ... import _native
from ..operands import Operands
from ..passes import Pass
from ..problem import Problem
from .direct_merged import saving, vectors_met
from .method import Array, Sums, Told

if TYPE_CHECKING:
    from .direct import DirectProgram

# In multiply-adds of a vector (Zen 4): one of phases side by side, of few vectors and from a packed region; what a row
# of taps lays down for a pixel.
BESIDE, LAID = 1.5, 40
MOST_BYTES = 4 << 20  # of products at a time, or those of an image
# Products are no more than so many times grad_output, or the result: memory.
TIMES_GIVEN, TIMES_MADE = 2, 4


class Scattered:
    """A single run, images together while their products stay in cache."""

    def __init__(self, p: Problem, s: Sums) -> None:
        from .direct import DirectProgram

        self.geometry = p.geometry
        flat = Pass(((0,), (0,), (0,)), ((0,), (0,), (0,)), (1, 1, 1))
        self.program: DirectProgram = DirectProgram(s._replace(
            passes=(flat,), transposed=False, outputs=p.outputs * prod(p.geometry.kernel_size), size=s.input_size,
        ))  # fmt: skip

    @property
    def image_bytes(self) -> int:
        """Of the products of an image."""
        s = self.program.sums
        return prod(s.input_size) * s.outputs * s.machine.element

    def need(self) -> int:
        """Memory of a run of any batch."""
        return self.program.need(False) + max(MOST_BYTES, self.image_bytes)

    def told(self, channels_last: bool) -> Told:
        """What `explain` shows."""
        own = self.program.told(channels_last, False)
        return own._replace(
            workspace_bytes=own.workspace_bytes + self.image_bytes,
            remark=f"products of all {prod(self.geometry.kernel_size)} taps at once, laid over each other",
        )

    def run(self, a: Operands) -> bool:
        """False where more than the gradient is asked for."""
        a = a.logical()
        if a.bias is not None or a.residual is not None or a.activation:
            return False
        axes, count = a.x.ndim - 2, max(1, MOST_BYTES // self.image_bytes)
        taps = (*range(2, 2 + axes), 1, 0)
        weight = a.weight.transpose(taps).reshape(-1, len(a.weight), *(1,) * axes)
        for first in range(0, len(a.x), count):
            own = slice(first, first + count)
            self._images(a.x[own], weight, a.out[own])
        return True

    def _images(self, x: Array, weight: Array, out: Array) -> None:
        images, _, *size = x.shape
        products = np.moveaxis(np.empty((images, *size, len(weight)), out.dtype), -1, 1)
        self.program.run(x, weight, None, None, None, products, 0, False)
        channels, element = out.shape[1], out.itemsize
        # channels side by side, and pixels of a row
        lies = channels * element == out.strides[-1] and (channels == 1 or out.strides[1] == element)
        to = out if lies else np.moveaxis(np.empty((images, *out.shape[2:], channels), out.dtype), -1, 1)
        g, m = self.geometry, self.program.sums.machine
        _native.lay_over(
            m.compute, products, to, g.kernel_size, g.stride, [before for before, _ in g.padding], m.threads
        )
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
    ):
        return None
    own = -(-p.outputs * prod(g.kernel_size) // p.machine.lanes) / prod(g.stride)
    beside = vectors_met(s) * (BESIDE if saving(s) < 1 else 1)
    taps = prod(g.kernel_size)
    if taps * p.outputs > TIMES_GIVEN * p.channels and taps > TIMES_MADE * prod(g.stride):
        return None
    if taps == prod(g.stride) or (beside - own) * p.channels < LAID * taps / g.kernel_size[2] / prod(g.stride):
        return None
    return Scattered(p, s)
