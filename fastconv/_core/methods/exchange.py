"""The direct method with the arrays laid otherwise, where a kernel is larger than what it is laid over.

The image is laid over the kernel (`passes.exchanged_passes`), or, where the whole kernel is laid down once at a single
pixel, each of its taps is an output of its own. An exchange keeps the order of the terms, and so the bits, but for long
sums, whose blocks it cuts elsewhere: their choice must not look at the batch, and it is made only where most of the
kernel meets padding.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import bias_for
from ..operands import Operands
from ..passes import Pass, Triple, exchanged_passes, terms, walks_padding
from ..problem import Problem
from .direct_blocking import tuned, walk_cycles
from .method import LONG_SUM, Array, Sums

if TYPE_CHECKING:
    from .direct import DirectProgram

LONG = 4  # times as large as the image: the kernel of a long sum
LONG_IMAGES = 16  # that the choice for a long sum counts on
MOST_PASSES = 64  # phases of the dilation
MOST_GROUPS = 16  # each is a step into native code


class Exchanged:
    """A single run of the planned batch with the kernel as the image, a group after the other."""

    def __init__(self, p: Problem, program: DirectProgram) -> None:
        self.problem, self.program = p, program

    def takes(self, x: Array, bias: Array | None, residual: Array | None) -> bool:
        """Whether it is for these arrays."""
        return len(x) == self.program.sums.outputs and (bias is None or residual is None)

    def run(self, a: Operands) -> None:
        """Its outputs in the place of the batch and the batch in that of the outputs. The bias, one number an image
        then, is what a residual is."""
        p, a = self.problem, a.logical()
        residual, batch = a.residual, a.weight.shape[0]
        axes = a.out.ndim - 2
        if a.bias is not None:
            bias: Array = a.bias.astype(a.out.dtype)
            residual = np.broadcast_to(bias[(..., *(None,) * axes)], a.out.shape)
        weight = a.weight if p.transposed else a.weight[(slice(None), slice(None), *(slice(None, None, -1),) * axes)]
        for group in range(p.groups):
            outputs = np.s_[:, group * p.outputs : (group + 1) * p.outputs]
            rows = batch // p.groups
            own = weight[group * rows : (group + 1) * rows]
            self.program.run(
                own.swapaxes(0, 1) if p.transposed else own,
                a.x[:, group * p.channels : (group + 1) * p.channels], None, None,
                None if residual is None else residual[outputs].swapaxes(0, 1), a.out[outputs].swapaxes(0, 1),
                a.activation, False,
            )  # fmt: skip


class Point:
    """A product of matrices: images x channels by channels x (output, tap), each of these a value of the result."""

    def __init__(self, p: Problem, program: DirectProgram) -> None:
        self.problem, self.program = p, program

    def run(self, a: Operands) -> bool:
        """False where the arrays do not lie so that outputs and taps are one axis."""
        a = a.logical()
        count, taps, axes = len(a.weight), prod(a.weight.shape[2:]), tuple(range(2, a.out.ndim))
        for order in ((0, 1, *axes), (0, *axes, 1)):
            weight, out = a.weight.transpose(order), a.out.transpose(order)
            if not (_merges(weight) and _merges(out)) or a.residual is not None:
                continue
            if len(a.x) != self.problem.geometry.batch:
                continue
            bias = a.bias
            if bias is not None:
                bias = np.repeat(bias, taps) if order[1] == 1 else np.tile(bias, taps)
            self.program.run(
                a.x.reshape(a.x.shape[:2]).T[None, :, :, None], weight.reshape(count, -1).T[:, :, None, None], None,
                bias_for(bias, self.problem.machine.compute), None, out.reshape(len(out), -1).T[None, :, :, None],
                a.activation, False,
            )  # fmt: skip
            return True
        return False


def _merges(array: Array) -> bool:
    """Whether all axes but the first are one without a copy."""
    step, contiguous = array.strides[-1], True
    for axis in range(array.ndim - 2, 0, -1):
        step *= array.shape[axis + 1]
        contiguous = contiguous and array.strides[axis] == step
    return contiguous


def _spreads_a_point(p: Problem) -> bool:
    """Whether an input gradient (a transposed convolution) lays the whole kernel down once, at a single pixel."""
    g = p.geometry
    return (
        p.transposed
        and g.groups == 1
        and prod(g.output_size) == 1
        and g.input_size == g.kernel_size
        and all(pad[0] == 0 for pad in g.padding)
        and all(dilation == 1 or kernel == 1 for dilation, kernel in zip(g.dilation, g.kernel_size, strict=True))
    )


def alternatives(p: Problem, passes: tuple[Pass, ...]) -> tuple[Point | None, Exchanged | None, bool]:
    """(what a single run does instead at a single pixel, and otherwise, and whether the image must stay whole then)."""
    from .direct import DirectProgram

    forced = p.wish != "auto"
    g, kernel = p.geometry, _three(p.geometry.kernel_size)
    if (
        p.held
        or p.mode
        or g.groups > MOST_GROUPS
        or 0 in (g.batch, p.channels, p.outputs, *p.size, *p.input_size, *kernel)
        or not any(walks_padding(q, own := q.output_size(p.size), p.input_size, own) for q in passes)
    ):
        return None, None, False
    other, point, whole = exchanged_passes(g, p.transposed), None, False
    sums = Sums.of(p)._replace(passes=passes)
    swapped = p.types._replace(input=p.types.weight, weight=p.types.input)
    if _spreads_a_point(p):
        long = any(terms(q, p.channels) >= LONG_SUM for q in passes)
        if not (long and forced):
            rows = (1, g.batch, 1)
            flat = Pass(((0,), (0,), (0,)), ((0,), (0,), (0,)), (1, 1, 1))
            point = Point(p, DirectProgram(sums._replace(
                passes=(flat,), transposed=False, outputs=p.outputs * prod(kernel), size=rows, input_size=rows, images=1
            )))  # fmt: skip
            whole = long
    long = any(terms(q, p.channels) >= LONG_SUM for q in (*passes, *other))
    if long and (forced or prod(kernel) < LONG * prod(p.input_size)):
        return point, None, whole  # the blocks of a long direct sum begin at the same terms in calls, plans and pieces
    images = LONG_IMAGES if long else g.batch
    laid = sums._replace(
        passes=tuple(other), transposed=False, outputs=g.batch, groups=1, input_size=kernel, images=p.outputs,
        types=swapped,
    )  # fmt: skip
    gain = tuned(p.machine).exchange_gain
    if len(other) > MOST_PASSES or (
        walk_cycles(laid._replace(outputs=images), p.outputs) >= gain * walk_cycles(sums, images)
    ):
        return point, None, whole
    kept = tuple(q for q in other if 0 not in q.output_size(p.size))
    return point, Exchanged(p, DirectProgram(laid._replace(passes=kept))), whole or long


def _three(sizes: tuple[int, ...]) -> Triple:
    z, y, x = sizes
    return z, y, x
