"""The operations on validated arrays in the logical order (batch, channel, *size), whatever their strides.

Integers are exact or refused before anything is written; everything else is a plan's program.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod
from typing import Any

import numpy as np

from .. import _native
from .arrays import bias_for
from .constant import as_zeros, is_constant, whole
from .explanation import ConvExplanation
from .geometry import Geometry
from .integers import Checked, fits_signed, largest, run_checked
from .methods.direct_bytes import multiplies_four
from .methods.method import Program
from .operands import Array
from .padding import padded_input_gradient
from .passes import Triple
from .plan import gradient_for, plan_for
from .problem import Direction, Problem, Use
from .rounding import in_precision, types_in
from .select import check
from .types import ACTIVATIONS, COMPUTE, FLOATS, STORAGE, DType, Types, result_of

# Products of an input element from which on it may be narrowed: looking at its range and copying it take as long as ten
# products of int64, of which the narrow ones save most. And those of a call: what surrounds the copies takes as long as
# half a million of int64, or four million of int16.
NARROWED_FROM, NARROWED_CALL = 32, 1 << 20
PARTIAL_SUMS_BYTES = 8 << 20  # all partial sums of a bias gradient
SHARED_BYTES = 1 << 18  # without sums, from which on threads share them out


def forward(
    g: Geometry, input: Array, weight: Array, bias: Array | None, activation: str | None, residual: Array | None,
    out: Array, *, algorithm: str = "auto", threads: int = 1, most: int | None = None, precision: str | None = None,
) -> None:  # fmt: skip
    """out = activation(conv(input, weight) + bias + residual); `precision` rounds the operands of float32 arrays."""
    check(g, Direction.FORWARD, input.dtype, algorithm)
    weight = in_precision(weight, precision)

    def run(
        x: Array, w: Array, to: Array, b: Array | None, add: Array | None, sums: str = "", act: str | None = activation
    ) -> None:
        if to.size:
            types = types_in(Types(x.dtype, w.dtype, to.dtype, sums=sums), precision)
            plan = plan_for(g, Direction.FORWARD, types, threads, algorithm, most=most)
            plan.program.run(
                x, w, None, bias_for(b, plan.problem.machine.compute), add, to, ACTIVATIONS[act], False
            )

    if out.dtype in FLOATS:
        run(input, weight, out, bias, residual)
        return
    extra = 0
    for name, array in (("bias", bias), ("residual", residual)):
        if array is not None:
            fits_signed(name, array)
            extra += largest(array)
    terms = prod(g.kernel_size) * weight.shape[1]
    padded = extra + _padding_largest(g, weight, terms)
    check_range = Checked("conv2d", "input", input, "weight", weight, terms, padded, out)
    if is_constant(g) and not check_range.certain:
        g, input = whole(g, input)
        check_range = Checked("conv2d", "input", input, "weight", weight, terms, extra, out)

    def as_type(array: Array | None, dtype: Any) -> Array | None:
        return None if array is None else array.astype(dtype)

    if not is_constant(g) and _worth_narrowing(g, input, out):
        narrow = check_range.narrow(multiplies_four(weight.shape[1]))
        if narrow is not None:
            run(*narrow, out, bias, as_type(residual, out.dtype), "int32" if out.dtype != np.int32 else "")
            return

    def run_float(x: Array, w: Array, to: Array) -> None:
        # without the activation, which would hide what wrapped
        run(x, w, to, as_type(bias, np.float64), as_type(residual, np.float64), act=None)

    run_checked(check_range, lambda to: run(input, weight, to, bias, as_type(residual, to.dtype)), run_float)


def _worth_narrowing(g: Geometry, x: Array, out: Array) -> bool:
    """Whether so many products are made of each element, and in all, that a look at the values pays."""
    each = prod(g.kernel_size) * g.out_channels // g.groups
    least = NARROWED_CALL if x.itemsize > 2 else 4 * NARROWED_CALL
    return each >= NARROWED_FROM and out.size * prod(g.kernel_size) * (g.in_channels // g.groups) >= least


def straight_input_gradient(g: Geometry, types: Types, algorithm: str, threads: int) -> Program | None:
    """The program that is all that an input gradient of these types is; None where there is more to do."""
    folded = g.padding_mode != "zeros" and any(side > 0 for axis in g.padding for side in axis)
    if types.result not in FLOATS or folded:
        return None
    g = as_zeros(g)
    check(g, Direction.INPUT_GRADIENT, types.input, algorithm)
    program = plan_for(g, Direction.INPUT_GRADIENT, types, threads, algorithm).program
    return program if program.covers else None


def input_gradient(
    g: Geometry, grad_output: Array, weight: Array, bias: Array | None, out: Array, *, algorithm: str = "auto",
    threads: int = 1, most: int | None = None, precision: str | None = None, residual: Array | None = None,
) -> None:  # fmt: skip
    """out = the gradient with respect to the input; the transposed convolution, with a bias and a residual."""
    g = as_zeros(g)
    check(g, Direction.INPUT_GRADIENT, grad_output.dtype, algorithm)
    weight = in_precision(weight, precision)

    def bare(g: Geometry, dy: Array, w: Array, to: Array, b: Array | None = None, add: Array | None = None) -> None:
        types = types_in(Types(dy.dtype, w.dtype, to.dtype), precision)
        plan = plan_for(g, Direction.INPUT_GRADIENT, types, threads, algorithm, most=most)
        b = bias_for(b, plan.problem.machine.compute)
        if to.size:
            plan.program.run(dy, w, None, b, add, to, 0, False)
        if not plan.program.covers:
            write_rest(plan.problem, to, b, add)

    def run(dy: Array, w: Array, to: Array, b: Array | None) -> None:
        if g.padding_mode != "zeros" and any(side > 0 for axis in g.padding for side in axis):
            padded_input_gradient(g, dy, w, to, bare)
        else:
            bare(g, dy, w, to, b, None if residual is None else residual.astype(to.dtype, copy=False))

    if out.dtype in FLOATS:
        run(grad_output, weight, out, bias)
        return
    extra = 0
    for name, array in (("bias", bias), ("residual", residual)):
        if array is not None:
            fits_signed(name, array)
            extra += largest(array)
    terms = prod(g.kernel_size) * max(1, g.out_channels // g.groups)
    if g.padding_mode != "zeros":  # one input element may lie under many padded positions
        terms *= max(1, prod(g.output_size))
    check_range = Checked("the input gradient", "grad_output", grad_output, "weight", weight, terms, extra, out)
    run_checked(
        check_range,
        lambda to: run(grad_output, weight, to, bias),
        lambda dy, w, to: run(dy, w, to, None if bias is None else bias.astype(np.float64)),
    )


def _padding_largest(g: Geometry, other: Array, terms: int) -> int:
    """What so many terms of a constant padding may add to an integer result."""
    return abs(int(g.padding_value)) * largest(other) * terms if is_constant(g) else 0


def write_rest(p: Problem, out: Array, bias: Array | None, residual: Array | None) -> None:
    """Outputs that no pass writes, of phases without taps: the bias of the channel and the residual, or 0.

    In the logical axis order. An input gradient has no activation.
    """
    axes = out.ndim - 2
    row = np.zeros(out.shape[1], out.dtype) if bias is None else bias.astype(out.dtype, copy=False)
    for own in _rest(p, axes):
        to = out[own]
        if residual is None and to.nbytes >= SHARED_BYTES:
            _native.move(to, np.broadcast_to(row[(..., *(None,) * axes)], to.shape), (), p.machine.threads)
        else:
            rest = 0 if residual is None else residual[own]
            to[...] = rest if bias is None else rest + bias[(..., *(None,) * axes)]


def _rest(p: Problem, axes: int) -> Iterator[tuple[Any, ...]]:
    """Where no pass writes: phases without taps, those of a row together where none of them has any."""
    step: Triple = p.passes[0].step if p.passes else (1, 1, 1)
    written = {q.phase for q in p.passes}
    lines: list[Any]
    for z, y in product(range(step[0]), range(step[1])):
        columns = [x for x in range(step[2]) if (z, y, x) not in written]
        if len(columns) == step[2]:
            lines = [slice(None)]
        else:
            lines = [slice(x, None, step[2]) for x in columns]
        before: tuple[Any, ...] = (slice(z, None, step[0]), slice(y, None, step[1]))[3 - axes :]
        for line in lines:
            yield (..., *before, line)


def weight_gradient(
    g: Geometry, input: Array, grad_output: Array, out: Array, *, algorithm: str = "auto", threads: int = 1,
    precision: str | None = None,
) -> None:  # fmt: skip
    """out (O, I/groups, *kernel) = the gradient with respect to the weight; zeros for an empty batch."""
    check(g, Direction.WEIGHT_GRADIENT, input.dtype, algorithm)
    if out.size == 0:
        return
    if grad_output.size == 0 or (input.size == 0 and not is_constant(g)):
        out[...] = 0
        return

    def run(x: Array, dy: Array, to: Array) -> None:
        types = types_in(Types(x.dtype, dy.dtype, to.dtype), precision).plain
        gradient_for(g, types, threads, algorithm).run(x, dy, to)

    if out.dtype in FLOATS:
        run(input, grad_output, out)
        return
    terms = g.batch * prod(g.output_size)
    extra = _padding_largest(g, grad_output, terms)
    check_range = Checked("the weight gradient", "input", input, "grad_output", grad_output, terms, extra, out)
    if is_constant(g) and not check_range.certain:
        g, input = whole(g, input)
        check_range = Checked("the weight gradient", "input", input, "grad_output", grad_output, terms, 0, out)
    run_checked(check_range, lambda to: run(input, grad_output, to), run)


def bias_gradient(grad_output: Array, out: Array, *, threads: int = 1) -> None:
    """out (C,) = the sum of grad_output over batch and pixels."""
    if grad_output.size == 0:
        out[...] = 0
        return
    batch, channels, *size = grad_output.shape
    rows = batch * prod(size[:-1])
    parts = max(1, min(rows, 32, PARTIAL_SUMS_BYTES // (8 * channels)))
    team = _native.threads_for(grad_output.size, threads)

    def run(dy: Array, to: Array) -> None:
        _native.bias_gradient(COMPUTE[to.dtype], dy, STORAGE[dy.dtype], to, STORAGE[to.dtype], parts, team)

    if out.dtype in FLOATS:
        run(grad_output, out)
        return
    one = np.ones((1,) * grad_output.ndim, np.int8)
    terms = grad_output.size // channels
    check_range = Checked("the bias gradient", "grad_output", grad_output, "one", one, terms, 0, out)
    run_checked(check_range, lambda to: run(grad_output, to), lambda dy, _, to: run(dy, to))


def explain(
    g: Geometry, dtype: DType, *, algorithm: str = "auto", threads: int = 1, channels_last: bool = False,
    direction: Direction = Direction.FORWARD, use: Use = Use.ONCE, most: int | None = None,
) -> ConvExplanation:  # fmt: skip
    """What an operation would do for this geometry and contiguous arrays of this layout; runs nothing."""
    check(g, direction, dtype, algorithm)
    types = Types(dtype, dtype, result_of(dtype))
    return plan_for(g, direction, types, threads, algorithm, use, most).explain(channels_last, use is not Use.ONCE)
