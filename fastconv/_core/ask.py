"""The way from a caller's arguments to a plan, once for all public functions and any number of axes.

`asked` is the preamble: layout, arrays, element types, geometry, gradient, algorithm, threads. What follows differs
from function to function: what is added to the result, where it goes, and which operation of `plan` computes it.
Everything is checked before anything is written. A plain call made before goes straight to the driver.

Here are the convolutions; `ask_gradients`, `ask_pooling` and `ask_plans` hold the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from . import remember, threads
from .arrays import ALIGNED_FROM_BYTES, Array, DType, as_array, bias_for, empty, is_ndarray, plain, result_dtype
from .checks import (
    checked_activation,
    checked_algorithm,
    checked_bias,
    checked_gradient,
    checked_tiles,
    checked_workspace,
)
from .constant import require_value
from .geometry import Geometry, conv_geometry, tiled_geometries
from .later import Later
from .layouts import Layout, checked_residual, destination, layout, lies_channels_last
from .record import NamedTuple
from .transposed import conv_transpose_geometry
from .types import ACTIVATIONS, FLOATS, Types
from .words import Shape, shape

if TYPE_CHECKING:
    from . import operations, problem
    from . import plan as planning
else:
    operations, problem, planning = Later("operations"), Later("problem"), Later("plan")

recall: Final = remember.recall
ZERO: Final = 0  # an option that is this very object was left out


# stride, padding, dilation, groups, and padding_mode and padding_value or, of a transposed convolution, output_padding
# and output_size: as written.
Options = tuple[object, object, object, object, object, object]


def _geometry(
    options: Options, transposed: bool, input: Shape, weight: Shape, name: str, shown: tuple[Shape, Shape]
) -> Geometry:
    """The convolution of an input and a weight of these logical shapes, or a refusal that shows the caller's."""
    key = ("conv", transposed, input, weight, *options) if all(map(remember.plain, options)) else None
    g: Geometry | None = None if key is None else recall(key)
    if g is None:
        stride, padding, dilation, groups, fifth, sixth = options
        if transposed:
            g = conv_transpose_geometry(
                input, weight, stride, padding, fifth, groups, dilation, name=name, shown=shown, output_size=sixth
            )
        else:
            g = conv_geometry(
                input, weight, stride, padding, dilation, groups, fifth, sixth, name=name, shown=shown
            )
        if key is not None:
            remember.keep(key, g)
    return g


class Asked(NamedTuple):
    """A call of a convolution or of its gradients with everything checked that all of them have."""

    name: str
    frame: Layout
    geometry: Geometry
    dtype: DType  # of the result, or of the gradient with respect to the input
    weight_dtype: DType  # of the gradient with respect to the weight
    input: Array | None  # logical views; None where the caller gave a shape
    weight: Array | None
    grad_output: Array | None
    shown_weight: Shape  # in the caller's axes
    batched: bool
    result_shape: Shape  # of the forward call, in the logical order
    algorithm: str
    threads: int
    most: int | None  # bytes of scratch

    def lies_last(self, array: Array) -> bool:
        """Whether a result made from this array has its channels last in memory."""
        return self.frame.channels_last or lies_channels_last(array)


def asked(
    name: str,
    axes: int,
    data_format: object,
    options: Options,
    input: object,
    weight: object,
    algorithm: object,
    num_threads: int | None,
    *,
    transposed: bool = False,
    gradient: tuple[object] | None = None,
    input_shape: str = "",
    weight_shape: str = "",
    dtype: DType | None = None,
    tiled: bool = False,
    max_workspace: object = None,
) -> Asked:
    """Check what all convolutions have.

    Where a shape is given in place of the input or the weight, `input_shape` or `weight_shape` is the argument's name;
    where both are, `dtype` is their type. `gradient` holds that of the result, of a function that takes it.
    """
    frame = layout(data_format, axes)
    own_x = None if input_shape else as_array("input", input)
    own_w = None if weight_shape else as_array("weight", weight)
    own_dy = None if gradient is None else as_array("grad_output", gradient[0])
    x = w = dy = None
    if own_x is None:
        shown_x = shape(input_shape, input)
        x_shape, batched = frame.logical_shape(input_shape, shown_x)
    else:
        x, batched = frame.activation("input", own_x)
        x_shape, shown_x = x.shape, own_x.shape
    if own_w is None:
        shown_w = shape(weight_shape, weight)
        find = frame.logical_tiled_shape if tiled else frame.logical_weight_shape
        w_shape = find(weight_shape, shown_w)
    else:
        w = (frame.tiled_weight if tiled else frame.weight)("weight", own_w)
        w_shape, shown_w = w.shape, own_w.shape
    if tiled:
        checked_tiles(name, w_shape)
        w_shape = w_shape[2:]
    types = (dtype, dtype) if dtype is not None else _result_dtypes(own_x, own_w, own_dy)
    g = _geometry(options, transposed, x_shape, w_shape, name, (shown_x, shown_w))
    if g.padding_value and (own_x is not None or own_dy is None):  # an input gradient has no use for it
        known = own_x if own_x is not None else own_w
        require_value(name, g, types[0] if known is None else known.dtype)
    if transposed:
        result_shape = (g.batch, g.in_channels, *g.input_size)
    else:
        result_shape = (g.batch, g.out_channels, *g.output_size)
    if own_dy is not None:
        dy = checked_gradient(name, frame, own_dy, result_shape, batched)
    return Asked(
        name, frame, g, *types, x, w, dy, shown_w, batched, result_shape, checked_algorithm(algorithm),
        threads.effective(num_threads), checked_workspace(max_workspace),
    )  # fmt: skip


def _result_dtypes(input: Array | None, weight: Array | None, grad_output: Array | None) -> tuple[DType, DType]:
    """The types of the result, or of the gradient with respect to the input, and of that of the weight."""
    if grad_output is None:
        assert weight is not None
        name, first = ("weight", weight) if input is None else ("input", input)
        dtype = result_dtype(name, first, "weight", weight)
        return dtype, dtype
    both = [
        result_dtype("grad_output", grad_output, name, other)
        for name, other in (("weight", weight), ("input", input))
        if other is not None
    ]
    return both[0], both[-1]  # of one that is not given, nobody asks


# ---- convolutions ------------------------------------------------------------------------------------------------


def convolve(
    axes: int,
    input: object,
    weight: object,
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    data_format: object,
    activation: object,
    residual: object,
    algorithm: object,
    num_threads: int | None,
    out: object,
    padding_value: object,
    max_workspace: object,
) -> Array:
    """activation(conv(input, weight) + bias + residual)."""
    key = None
    if out is None and residual is None and max_workspace is None and padding_value is ZERO:
        key = remember.key_of(
            axes, input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation,
            algorithm, num_threads,
        )  # fmt: skip
        if key is not None and (known := recall(key)) is not None:
            run, compute, new, shape, code, last = known
            result: Array = new(shape, input.dtype)  # type: ignore[attr-defined]
            shift = None if bias is None else bias_for(bias, compute)  # type: ignore[arg-type]
            run(input, weight, None, shift, None, result, code, last)
            return result
    a = asked(
        f"conv{axes}d", axes, data_format, (stride, padding, dilation, groups, padding_mode, padding_value), input,
        weight, algorithm, num_threads, max_workspace=max_workspace,
    )  # fmt: skip
    assert a.input is not None and a.weight is not None
    b = checked_bias(a.name, bias, a.geometry.out_channels, a.dtype, a.shown_weight)
    act = checked_activation(activation, a.dtype)
    add = None
    if residual is not None:
        add = checked_residual(a.name, residual, a.frame, a.result_shape, a.batched, a.dtype)
    target, result, finish = destination(
        a.name, out, a.frame, a.result_shape, a.dtype, a.batched, a.lies_last(a.input), (a.input, a.weight, b, add)
    )
    operations.forward(
        a.geometry, a.input, a.weight, b, act, add, target, algorithm=a.algorithm, threads=a.threads, most=a.most
    )
    finish()
    if key is not None and (a.frame.channels_last or a.input.flags.c_contiguous) and 0 not in a.result_shape:
        types = Types(a.input.dtype, a.weight.dtype, a.dtype)
        plan = planning.plan_for(a.geometry, problem.Direction.FORWARD, types, a.threads, a.algorithm)
        shape, last = a.frame.from_logical_shape(a.result_shape), a.frame.channels_last
        new = np.empty if result.nbytes < ALIGNED_FROM_BYTES else empty
        known = (plan.program.run, plan.problem.machine.compute, new, shape, ACTIVATIONS[act], last)
        remember.keep(key, known)
    return result


def transpose(
    axes: int,
    input: object,
    weight: object,
    bias: object,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
    out: object,
    output_size: object,
    max_workspace: object,
) -> Array:
    """The transposed convolution: an input gradient with a bias."""
    a = asked(
        f"conv_transpose{axes}d", axes, data_format, (stride, padding, dilation, groups, output_padding, output_size),
        input, weight, algorithm, num_threads, transposed=True, max_workspace=max_workspace,
    )  # fmt: skip
    assert a.input is not None and a.weight is not None
    b = checked_bias(a.name, bias, a.geometry.in_channels, a.dtype, a.shown_weight)
    target, result, finish = destination(
        a.name, out, a.frame, a.result_shape, a.dtype, a.batched, a.lies_last(a.input), (a.input, a.weight, b)
    )
    operations.input_gradient(
        a.geometry, a.input, a.weight, b, target, algorithm=a.algorithm, threads=a.threads, most=a.most
    )
    finish()
    return result


def convolve_tiled(
    input: object,
    weight: object,
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
    out: object,
    max_workspace: object,
) -> Array:
    """The convolution with kernels that take turns over the output."""
    a = asked(
        "tiled_conv2d", 2, data_format, (stride, padding, dilation, 1, "zeros", 0), input, weight, algorithm,
        num_threads, tiled=True, max_workspace=max_workspace,
    )  # fmt: skip
    assert a.input is not None and a.weight is not None
    b = checked_bias(a.name, bias, a.geometry.out_channels, a.dtype, a.shown_weight)
    # An integer result that leaves its range is found out tile by tile: `out` is then written only at the end.
    unsafe = plain(out) if a.dtype not in FLOATS and is_ndarray(out) else None
    target, result, finish = destination(
        a.name, out, a.frame, a.result_shape, a.dtype, a.batched, a.lies_last(a.input), (a.input, a.weight, b, unsafe)
    )
    tiles = a.weight.shape[:2]
    for (top, left), part in tiled_geometries(a.geometry, tiles):
        pixels = target[:, :, top :: tiles[0], left :: tiles[1]]
        if pixels.size:
            kernel = a.weight[top, left]
            operations.forward(
                part, a.input, kernel, b, None, None, pixels, algorithm=a.algorithm, threads=a.threads, most=a.most
            )
    finish()
    return result
