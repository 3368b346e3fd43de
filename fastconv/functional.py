"""The functions of the package under PyTorch's names and in its order: NumPy arrays in, NumPy arrays out.

Here the caller's words become a `Geometry` and arrays in the logical axis order, everything is checked before anything
is written, and `plan` does the work. Options mean the same everywhere:

- `stride`, `dilation`, `kernel_size`: an integer, or (height, width).
- `padding`: an integer, (height, width), ((top, bottom), (left, right)) whose negative values crop, or 'valid', 'same'
  (ceil(size / stride) outputs, the odd pixel at the end), 'same_lower' (at the start) or 'full'.
- `padding_mode`: 'zeros', 'reflect', 'replicate', 'circular' or 'symmetric', as wide as asked for: the repetition goes
  on as in `numpy.pad`.
- `data_format`: 'NCHW' ('channels_first') with weights (O, I/groups, kH, kW), or 'NHWC' ('channels_last') with weights
  (kH, kW, I/groups, O). The batch axis may be left out.
- `algorithm`: 'auto', 'direct', 'winograd' (tiles of 4 x 4 outputs) or 'winograd_2x2' (smaller tiles, a smaller error);
  `num_threads`: for this call, in place of `get_num_threads()`.
- `out`: an array of the result's shape and dtype that receives it; it may overlap the inputs.

Words are taken in any case. Floats are computed in their own precision (float16 in float32 and rounded once);
integers of up to 16 bits give int32, wider ones int64, exactly or not at all. The result lies C-contiguous in the
caller's axes, except that an NCHW-shaped view of channels-last memory gives another such view.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from . import _native, plan, threads
from .arrays import (
    FLOATS,
    LAYOUTS_1D,
    Array,
    DType,
    Layout,
    as_array,
    checked_residual,
    destination,
    empty,
    empty_activation,
    empty_weight,
    layout,
    lies_channels_last,
    require_addend,
    result_dtype,
)
from .call import ACTIVATIONS as ACTIVATION_CODES
from .call import bias_for, forward_call
from .choice import WINOGRAD_TILES
from .errors import ConvError, ConvTypeError
from .geometry import (
    Padding,
    Shape,
    Size,
    conv_geometry,
    conv_transpose_geometry,
    flag,
    integer,
    padding_1d,
    pool_geometry,
    shape,
    single,
    tiled_geometries,
    word,
)
from .plan import ConvExplanation, ConvPlan
from .remembered import Gradients, call_key, known_key, remember, remembered_calls, remembered_gradients

ALGORITHMS: Final = ("auto", "direct", *WINOGRAD_TILES)
ACTIVATIONS: Final = ("relu", "relu6", "leaky_relu", "silu", "sigmoid", "hardswish")
EXACT_ACTIVATIONS: Final = ("relu", "relu6")


# ---- options with arrays -----------------------------------------------------------------------------------------


def checked_algorithm(algorithm: object) -> str:
    """`algorithm` as a word of `ALGORITHMS`."""
    return algorithm if algorithm == "auto" and isinstance(algorithm, str) else word("algorithm", algorithm, ALGORITHMS)


def _checked_activation(activation: object, dtype: DType) -> str | None:
    if activation is None:
        return None
    chosen = word("activation", activation, ACTIVATIONS)
    if dtype not in FLOATS and chosen not in EXACT_ACTIVATIONS:
        raise ConvTypeError(
            f"activation={chosen!r} of an integer result ({dtype}) is no integer; use None, 'relu' or 'relu6', or "
            "convert the arrays with .astype('float32')."
        )
    return chosen


def _checked_bias(name: str, bias: object, channels: int, dtype: DType, weight_shape: Shape) -> Array | None:
    if bias is None:
        return None
    array = as_array("bias", bias)
    if array.shape != (channels,):
        raise ConvError(
            f"{name}: bias must have shape ({channels},), one value for each output channel of weight {weight_shape}, "
            f"but got bias of shape {array.shape}; reshape it."
        )
    require_addend("bias", array, dtype)
    return array


# ---- convolution -------------------------------------------------------------------------------------------------


def _convolve(
    name: str,
    frame: Layout,
    input: object,
    weight: object,
    bias: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    activation: object,
    residual: object,
    algorithm: object,
    num_threads: int | None,
    out: object,
    key: tuple[object, ...] | None = None,
) -> Array:
    own_input, own_weight = as_array("input", input), as_array("weight", weight)
    x, batched = frame.activation("input", own_input)
    w = frame.weight("weight", own_weight)
    dtype = result_dtype("input", own_input, "weight", own_weight)
    g = conv_geometry(
        x.shape, w.shape, stride, padding, dilation, groups, padding_mode,
        name=name, shown=(own_input.shape, own_weight.shape),
    )  # fmt: skip
    b = _checked_bias(name, bias, g.out_channels, dtype, own_weight.shape)
    act = _checked_activation(activation, dtype)
    result_shape = (g.batch, g.out_channels, *g.output_size)
    add = None if residual is None else checked_residual(name, residual, frame, result_shape, batched, dtype)
    chosen = checked_algorithm(algorithm)
    team = threads.effective(num_threads)
    channels_last = frame.channels_last or lies_channels_last(x)
    target, result, finish = destination(
        name, out, frame, result_shape, dtype, batched, channels_last, (x, w, b, add)
    )
    plan.forward(g, x, w, b, act, add, target, algorithm=chosen, threads=team)
    finish()
    if key is not None and (frame.channels_last or own_input.flags.c_contiguous):
        call = forward_call(g, dtype, chosen, team)
        if not call.packs and 0 not in result_shape:
            shape = frame.from_logical_shape(result_shape)
            remember(remembered_calls, key, (call, shape, ACTIVATION_CODES[act], frame.channels_last))
    return result


def conv2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "NCHW",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """activation(conv(input, weight) + bias + residual), a cross-correlation as in PyTorch and Keras.

    `activation` is None, 'relu', 'relu6', 'leaky_relu' (slope 0.01), 'silu', 'sigmoid' or 'hardswish'; `residual` has
    the result's shape. See the module's text for the other options.
    """
    key = None
    if out is None and residual is None:
        key = call_key(
            input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation, algorithm,
            num_threads,
        )  # fmt: skip
        if key is not None and (known := remembered_calls.get(key)) is not None:
            call, result_shape, activation_code, channels_last = known
            result = empty(result_shape, input.dtype)  # type: ignore[union-attr]
            shift = bias_for(bias, call.compute)  # type: ignore[arg-type]
            call.run(weight, input, result, shift, None, activation_code, None, channels_last)  # type: ignore[arg-type]
            return result
    return _convolve(
        "conv2d", layout(data_format), input, weight, bias, stride, padding, dilation, groups, padding_mode, activation,
        residual, algorithm, num_threads, out, key,
    )  # fmt: skip


def conv1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "NCL",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """`conv2d` without the height: input (N, C, L), weight (O, I/groups, k), or (N, L, C) and (k, I/groups, O).

    `padding` is an integer, ((left, right),) or a word.
    """
    return _convolve(
        "conv1d", layout(data_format, LAYOUTS_1D), input, weight, bias, (1, single("stride", stride, 1)),
        padding_1d(padding), (1, single("dilation", dilation, 1)), groups, padding_mode, activation, residual,
        algorithm, num_threads, out,
    )  # fmt: skip


def _convolve_transposed(
    name: str,
    frame: Layout,
    input: object,
    weight: object,
    bias: object,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    algorithm: object,
    num_threads: int | None,
    out: object,
) -> Array:
    own_input, own_weight = as_array("input", input), as_array("weight", weight)
    x, batched = frame.activation("input", own_input)
    w = frame.weight("weight", own_weight)
    dtype = result_dtype("input", own_input, "weight", own_weight)
    g = conv_transpose_geometry(
        x.shape, w.shape, stride, padding, output_padding, groups, dilation,
        name=name, shown=(own_input.shape, own_weight.shape),
    )  # fmt: skip
    b = _checked_bias(name, bias, g.in_channels, dtype, own_weight.shape)
    chosen = checked_algorithm(algorithm)
    team = threads.effective(num_threads)
    channels_last = frame.channels_last or lies_channels_last(x)
    target, result, finish = destination(
        name, out, frame, (g.batch, g.in_channels, *g.input_size), dtype, batched, channels_last, (x, w, b)
    )
    plan.input_gradient(g, x, w, b, target, algorithm=chosen, threads=team)
    finish()
    return result


def conv_transpose2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """The transposed convolution: the gradient of `conv2d` with respect to its input, plus a bias.

    Weights are (I, O/groups, kH, kW), in NHWC Keras' (kH, kW, O/groups, I). The output has
    (H - 1)*stride - pads + dilation*(k - 1) + 1 + output_padding rows; padding='same' gives H*stride + output_padding.
    """
    return _convolve_transposed(
        "conv_transpose2d", layout(data_format), input, weight, bias, stride, padding, output_padding, groups, dilation,
        algorithm, num_threads, out,
    )  # fmt: skip


def conv_transpose1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    data_format: str = "NCL",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """`conv_transpose2d` without the height: input (N, C, L), weight (I, O/groups, k)."""
    return _convolve_transposed(
        "conv_transpose1d", layout(data_format, LAYOUTS_1D), input, weight, bias, (1, single("stride", stride, 1)),
        padding_1d(padding), (0, single("output_padding", output_padding, 0)), groups,
        (1, single("dilation", dilation, 1)), algorithm, num_threads, out,
    )  # fmt: skip


# ---- gradients of conv2d -----------------------------------------------------------------------------------------


def require_gradient(name: str, frame: Layout, grad_output: Array, result_shape: Shape, batched: bool) -> Array:
    """The gradient of a result of this logical shape as a logical view."""
    logical, own_batched = frame.activation("grad_output", grad_output)
    if logical.shape != result_shape or own_batched != batched:
        wanted = frame.from_logical(np.broadcast_to(np.int8(0), result_shape), batched).shape
        raise ConvError(
            f"{name}: grad_output must have the shape {wanted} of the result of the forward call, but got grad_output "
            f"of shape {grad_output.shape}; check stride, padding and dilation against that call."
        )
    return logical


def conv2d_backward(
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    output_mask: Sequence[bool] = (True, True, True),
    padding_mode: str = "zeros",
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """The gradients of `conv2d` with respect to (input, weight, bias); None where `output_mask` is False."""
    key = None
    if type(input) is np.ndarray and type(grad_output) is np.ndarray and input.dtype == grad_output.dtype:
        key = known_key(
            ("conv2d_backward", input.shape, input.flags.c_contiguous), grad_output, weight, stride, padding, dilation,
            groups, padding_mode, data_format, algorithm, num_threads,
        )  # fmt: skip
    if key is not None and (known := remembered_gradients.get(key)) is not None:
        wanted = _checked_mask(output_mask)
        return (
            known.input(grad_output, weight) if wanted[0] else None,  # type: ignore[arg-type]
            known.weight(grad_output, input) if wanted[1] else None,  # type: ignore[arg-type]
            known.bias(grad_output) if wanted[2] else None,  # type: ignore[arg-type]
        )
    name = "conv2d_backward"
    frame = layout(data_format)
    own_dy, own_input = as_array("grad_output", grad_output), as_array("input", input)
    own_weight = as_array("weight", weight)
    x, batched = frame.activation("input", own_input)
    w = frame.weight("weight", own_weight)
    input_dtype = result_dtype("grad_output", own_dy, "weight", own_weight)
    weight_dtype = result_dtype("grad_output", own_dy, "input", own_input)
    g = conv_geometry(
        x.shape, w.shape, stride, padding, dilation, groups, padding_mode,
        name=name, shown=(own_input.shape, own_weight.shape),
    )  # fmt: skip
    dy = require_gradient(name, frame, own_dy, (g.batch, g.out_channels, *g.output_size), batched)
    wanted = _checked_mask(output_mask)
    chosen = checked_algorithm(algorithm)
    team = threads.effective(num_threads)

    grad_input = grad_weight = grad_bias = None
    if wanted[0]:
        dx = empty_activation(x.shape, input_dtype, frame.channels_last or lies_channels_last(x))
        plan.input_gradient(g, dy, w, None, dx, algorithm=chosen, threads=team)
        grad_input = frame.from_logical(dx, batched)
    if wanted[1]:
        dw = empty_weight(w.shape, weight_dtype, frame.channels_last)
        plan.weight_gradient(g, x, dy, dw, algorithm=chosen, threads=team)
        grad_weight = frame.weight_from_logical(dw)
    if wanted[2]:
        grad_bias = np.empty(g.out_channels, result_dtype("grad_output", own_dy, "grad_output", own_dy))
        plan.bias_gradient(dy, grad_bias, threads=team)
    if key is not None and batched and (frame.channels_last or own_input.flags.c_contiguous):
        remember(remembered_gradients, key, Gradients(frame, g, chosen, team))
    return grad_input, grad_weight, grad_bias


def _checked_mask(mask: object) -> tuple[bool, bool, bool]:
    if not isinstance(mask, (tuple, list)):
        raise ConvTypeError(
            f"output_mask must be a tuple of three bools, but got {mask!r} of type {type(mask).__name__}."
        )
    if len(mask) != 3:
        raise ConvError(
            f"output_mask must hold three bools, for input, weight and bias, but got output_mask={mask!r} "
            f"with {len(mask)} values."
        )
    first, second, third = (flag("output_mask", wanted) for wanted in mask)
    return first, second, third


# ---- tiled convolution -------------------------------------------------------------------------------------------


def tiled_conv2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    *,
    dilation: Size = 1,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Kernels that take turns over the output: pixel (y, x) is made with kernel [y mod tH, x mod tW].

    Weights are (tH, tW, O, I, kH, kW), in NHWC (tH, tW, kH, kW, I, O). One tile is an ordinary convolution, as many
    tiles as outputs a locally connected layer (Goodfellow, Bengio, Courville: Deep Learning, section 9.5).
    """
    name = "tiled_conv2d"
    frame = layout(data_format)
    own_input, own_weight = as_array("input", input), as_array("weight", weight)
    x, batched = frame.activation("input", own_input)
    kernels = frame.tiled_weight("weight", own_weight)
    tiles = checked_tiles(name, kernels.shape)
    dtype = result_dtype("input", own_input, "weight", own_weight)
    g = conv_geometry(
        x.shape, kernels.shape[2:], stride, padding, dilation, 1, name=name, shown=(own_input.shape, own_weight.shape)
    )
    b = _checked_bias(name, bias, g.out_channels, dtype, own_weight.shape)
    chosen = checked_algorithm(algorithm)
    team = threads.effective(num_threads)
    # An integer result that leaves its range is found out tile by tile: `out` is then written only at the end.
    unsafe = out if dtype not in FLOATS and isinstance(out, np.ndarray) else None
    target, result, finish = destination(
        name, out, frame, (g.batch, g.out_channels, *g.output_size), dtype, batched,
        frame.channels_last or lies_channels_last(x), (x, kernels, b, unsafe),
    )  # fmt: skip
    for a, c, part in tiled_geometries(g, tiles):
        pixels = target[:, :, a :: tiles[0], c :: tiles[1]]
        if pixels.size:
            plan.forward(part, x, kernels[a, c], b, None, None, pixels, algorithm=chosen, threads=team)
    finish()
    return result


def checked_tiles(name: str, kernels_shape: Shape) -> tuple[int, int]:
    """(tH, tW) of a tiled weight of this logical shape."""
    if 0 in kernels_shape[:2]:
        raise ConvError(
            f"{name}: weight must hold at least one kernel, but got {kernels_shape[0]} x {kernels_shape[1]} tiles "
            "(its first two axes)."
        )
    return kernels_shape[0], kernels_shape[1]


# ---- pooling -----------------------------------------------------------------------------------------------------


def max_pool2d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "NCHW",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """The maximum of every window; NaN counts as larger than all, padding as smaller.

    With `return_indices` also the place of the (first) maximum in its plane, row * width + column, as int64.
    """
    name = "max_pool2d"
    frame = layout(data_format)
    own = as_array("input", input)
    x, batched = frame.activation("input", own)
    pg = pool_geometry(x.shape, kernel_size, stride, padding, dilation, ceil_mode, name=name, shown=own.shape)
    indexed = flag("return_indices", return_indices)
    team = threads.effective(num_threads)
    result_shape = (pg.batch, pg.channels, *pg.output_size)
    channels_last = frame.channels_last or lies_channels_last(x)
    target, result, finish = destination(name, out, frame, result_shape, x.dtype, batched, channels_last, (x,))
    where = empty_activation(result_shape, np.dtype(np.int64), channels_last) if indexed else None
    plan.max_pool(pg, x, target, where, threads=team)
    finish()
    return result if where is None else (result, frame.from_logical(where, batched))


def checked_average(
    name: str, dtype: DType, argument: str, count_include_pad: object, divisor_override: object
) -> tuple[bool, int | None]:
    """The options of an average; refuses integers, whose mean is none."""
    if dtype not in FLOATS:
        raise ConvTypeError(
            f"{name}: {argument} must be floating point, but got {argument} of dtype {dtype}: a mean of integers is no "
            "integer. Convert it with .astype('float32')."
        )
    include = flag("count_include_pad", count_include_pad)
    if divisor_override is None:
        return include, None
    divisor = integer("divisor_override", divisor_override)
    if not 0 < abs(divisor) < 1 << 53:
        raise ConvError(
            f"{name}: divisor_override must not be 0 and below 2**53, but got divisor_override={divisor}; "
            "use None for the size of the window."
        )
    return include, divisor


def avg_pool2d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "NCHW",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """The mean of every window; the padding counts as zeros unless `count_include_pad` is False."""
    name = "avg_pool2d"
    frame = layout(data_format)
    own = as_array("input", input)
    x, batched = frame.activation("input", own)
    pg = pool_geometry(x.shape, kernel_size, stride, padding, 1, ceil_mode, name=name, shown=own.shape)
    include, divisor = checked_average(name, x.dtype, "input", count_include_pad, divisor_override)
    team = threads.effective(num_threads)
    target, result, finish = destination(
        name, out, frame, (pg.batch, pg.channels, *pg.output_size), x.dtype, batched,
        frame.channels_last or lies_channels_last(x), (x,),
    )  # fmt: skip
    plan.avg_pool(pg, x, target, count_include_pad=include, divisor_override=divisor, threads=team)
    finish()
    return result


# ---- plans -------------------------------------------------------------------------------------------------------


def plan_conv2d(
    input_shape: Sequence[int],
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "NCHW",
    activation: str | None = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> ConvPlan:
    """A `conv2d` prepared once, with packed weights, to be run on many inputs of this shape and the weight's dtype.

    The batch of `input_shape` is only a hint: `ConvPlan.run` takes any.
    """
    name = "plan_conv2d"
    frame = layout(data_format)
    own_shape = shape("input_shape", input_shape)
    own_weight = as_array("weight", weight)
    input_logical, batched = frame.logical_shape("input_shape", own_shape)
    w = frame.weight("weight", own_weight)
    g = conv_geometry(
        input_logical, w.shape, stride, padding, dilation, groups, padding_mode,
        name=name, shown=(own_shape, own_weight.shape),
    )  # fmt: skip
    dtype = result_dtype("weight", own_weight, "weight", own_weight)
    b = _checked_bias(name, bias, g.out_channels, dtype, own_weight.shape)
    act = _checked_activation(activation, dtype)
    return ConvPlan(
        g, w, b, own_weight.dtype, data_format="NHWC" if frame.channels_last else "NCHW", activation=act,
        algorithm=checked_algorithm(algorithm), threads=threads.effective(num_threads), batched=batched,
    )  # fmt: skip


def explain_conv2d(
    input_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    dtype: Any = "float32",
    padding_mode: str = "zeros",
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> ConvExplanation:
    """How `conv2d` would do this convolution: algorithm, tiles, memory, multiply-adds and why. Runs nothing."""
    frame = layout(data_format)
    own_input, own_weight = shape("input_shape", input_shape), shape("weight_shape", weight_shape)
    input_logical, _ = frame.logical_shape("input_shape", own_input)
    g = conv_geometry(
        input_logical, frame.logical_weight_shape("weight_shape", own_weight), stride, padding, dilation, groups,
        padding_mode, name="explain_conv2d", shown=(own_input, own_weight),
    )  # fmt: skip
    try:
        element = np.dtype(dtype)
    except TypeError as error:
        raise ConvTypeError(f"dtype must name an element type such as 'float32', but got {dtype!r}.") from error
    as_array("dtype", np.empty(0, element))
    return plan.explain(
        g, element.newbyteorder("="), algorithm=checked_algorithm(algorithm), threads=threads.effective(num_threads),
        channels_last=frame.channels_last,
    )  # fmt: skip


def info() -> dict[str, Any]:
    """The version, the instruction sets built, available and in use, the threads and the OpenMP runtime."""
    from . import __version__

    return {
        "version": __version__,
        "isa": _native.isa_name(),
        "isas_built": _native.isas_built(),
        "isas_available": _native.isas_available(),
        "threads": threads.get_num_threads(),
        "openmp": _native.openmp_runtime(),
    }
