"""The functions of the package under PyTorch's names and in its order: NumPy arrays in, NumPy arrays out.

Here the caller's words become a `Geometry` and arrays in the logical axis order, everything is checked before anything
is written, and `plan` does the work. Options mean the same everywhere, and are described with `conv2d`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from . import _native, plan, threads
from ._core.types import ACTIVATIONS as ACTIVATION_CODES
from ._core.types import FLOATS
from .activations import FUSED, LINEAR, activation_name
from .arrays import (
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
    is_ndarray,
    layout,
    lies_channels_last,
    require_addend,
    result_dtype,
)
from .arrays import plain as plain_array
from .call import bias_for, forward_call
from .choice import LINE, STRASSEN, WINOGRAD
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

ALGORITHMS: Final = ("auto", "direct", *WINOGRAD, *LINE, *STRASSEN)
ACTIVATIONS: Final = (LINEAR, *FUSED)
EXACT_ACTIVATIONS: Final = ("relu", "relu6")


# ---- options with arrays -----------------------------------------------------------------------------------------


def checked_algorithm(algorithm: object) -> str:
    """`algorithm` as a word of `ALGORITHMS`."""
    return algorithm if algorithm == "auto" and isinstance(algorithm, str) else word("algorithm", algorithm, ALGORITHMS)


def _checked_activation(activation: object, dtype: DType) -> str | None:
    if activation is None:
        return None
    chosen = activation_name(activation, ACTIVATIONS)
    if chosen == LINEAR:
        return None
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
    """Convolve images with filters: activation(conv(input, weight) + bias + residual).

    A cross-correlation, as in PyTorch and Keras: the kernel is not turned round. Words are taken in any case.

    Parameters
    ----------
    input : array_like
        Shape (N, C, H, W), or (N, H, W, C) with ``data_format='NHWC'``; the batch axis may be left out.
    weight : array_like
        Shape (O, C / groups, kH, kW), or (kH, kW, C / groups, O) in NHWC; of the input's element type.
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride : int or (int, int)
        Rows and columns from one output to the next.
    padding : int, (int, int), ((int, int), (int, int)) or str
        Rows and columns of padding: for all sides, (height, width), or ((top, bottom), (left, right)) whose negative
        values crop; or 'valid' (none), 'same' (ceil(size / stride) outputs, the odd pixel at the end), 'same_lower' (at
        the start), 'full' (every overlap).
    dilation : int or (int, int)
        Distance between neighbouring taps of the kernel, in pixels.
    groups : int
        Groups of channels that are convolved apart; depthwise is ``groups=C``.
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular', 'symmetric'}
        What the padding holds. It may be wider than the image: the repetition then goes on, as in `numpy.pad`.
    data_format : {'NCHW', 'NHWC', 'channels_first', 'channels_last'}
        The order of the axes of all arrays.
    activation : {None, 'relu', 'relu6', 'leaky_relu', 'silu', 'sigmoid', 'hardswish'}
        Applied before the result is stored; the slope of 'leaky_relu' is 0.01. Integers take the first three alone.
        'linear', 'swish', 'hard_swish' and 'hard_silu', Keras' words, mean None, 'silu' and 'hardswish'.
    residual : array_like, optional
        An array of the result's shape and element type, added before the activation.
    algorithm : str
        'auto', 'direct', 'winograd', 'winograd_2x2', 'winograd_phases', 'winograd_phases_4x4',
        'winograd_rows', 'strassen' or 'strassen_twice'.
        'auto' takes what `explain_conv2d` says.
    num_threads : int, optional
        Threads for this call, in place of `get_num_threads()`.
    out : ndarray, optional
        An array of the result's shape and element type that receives it; it may overlap the inputs.

    Returns
    -------
    ndarray
        Shape (N, O, H', W') or (N, H', W', O) with H' = (H + top + bottom - (kH - 1) * dilation - 1) // stride + 1. Of
        the input's element type if that is a float; integers of up to 16 bits give int32, wider ones int64.

    Raises
    ------
    ConvError
        For values and shapes that do not fit together; both a `ValueError` and a `RuntimeError`.
    ConvTypeError
        For a type or element type that is not taken; both a `TypeError` and a `RuntimeError`.
    MemoryError
        If the result cannot be allocated. Nothing has been written when an error is raised.

    Notes
    -----
    float32 and float64 are computed in their own precision, float16 (and ml_dtypes' bfloat16) in float32 and rounded
    once. Integer results are exact or refused with `ConvError`; nothing wraps. Positions in the padding are skipped,
    not multiplied, so that an infinite weight there adds nothing. The error bounds are on the page about accuracy.

    The result lies C-contiguous in the caller's axes, except that an NCHW-shaped view of channels-last memory gives
    another such view. Any strides are taken: views, negative, zero, unaligned, byte-swapped.

    'winograd' is F(4x4, 3x3) of Lavin and Gray, 'winograd_2x2' their F(2x2, 3x3) with smaller tiles and errors, both
    at stride 1; 'winograd_phases' is theirs at stride 2, for 3x3 kernels and for the input gradient of 4x4 ones,
    'winograd_phases_4x4' the former in larger tiles; 'winograd_rows' works along the rows of kernels of seven columns
    at stride 2 with up to four channels.
    'strassen' multiplies the blocks of a 1x1 convolution, whose channels must divide, in 7 products for 8,
    'strassen_twice' in 49 for 64. All are for float32 alone.

    References
    ----------
    Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.
    Strassen, "Gaussian elimination is not optimal", Numerische Mathematik 13, 1969.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv
    >>> image = np.arange(16.0).reshape(1, 4, 4)  # one channel, no batch axis
    >>> box = np.ones((1, 1, 3, 3))
    >>> fastconv.conv2d(image, box)
    array([[[45., 54.],
            [81., 90.]]])
    >>> fastconv.conv2d(image, box, padding="same", stride=2).shape
    (1, 2, 2)
    >>> fastconv.conv2d(np.ones((1, 1, 2, 2), np.int8), np.full((1, 1, 2, 2), 100, np.int8)).item()
    400
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
    """Convolve signals with filters: `conv2d` without the height.

    Parameters
    ----------
    input : array_like
        Shape (N, C, L), or (N, L, C) with ``data_format='NLC'``; the batch axis may be left out.
    weight : array_like
        Shape (O, C / groups, k), or (k, C / groups, O).
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride : int
        Samples from one output to the next.
    padding : int, ((int, int),) or str
        Samples of padding on both sides, ((left, right),), or a word as for `conv2d`.
    dilation, groups : int
        As for `conv2d`.
    padding_mode : {'zeros', 'reflect', 'replicate', 'circular', 'symmetric'}
        What the padding holds. It may be wider than the image: the repetition then goes on, as in `numpy.pad`.
    data_format : {'NCL', 'NLC', 'channels_first', 'channels_last'}
        The order of the axes.
    activation, residual, algorithm, num_threads, out : as for `conv2d`
        See there.

    Returns
    -------
    ndarray
        Shape (N, O, L') or (N, L', O).

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.conv1d([[1.0, 2.0, 4.0, 8.0]], [[[1.0, 1.0]]])
    array([[ 3.,  6., 12.]])
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
    """Run a convolution backwards: the gradient of `conv2d` with respect to its input, plus a bias.

    Also called deconvolution; a stride enlarges the image. No zeros are inserted: each phase of the stride is a
    convolution of its own (Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016).

    Parameters
    ----------
    input : array_like
        Shape (N, C, H, W), or (N, H, W, C) with ``data_format='NHWC'``; the batch axis may be left out.
    weight : array_like
        Shape (C, O / groups, kH, kW), or Keras' (kH, kW, O / groups, C) in NHWC; of the input's element type.
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride : int or (int, int)
        Rows and columns of the output from one input pixel to the next.
    padding : int, (int, int), ((int, int), (int, int)) or str
        What is cut off the output's borders; 'same' gives H * stride + output_padding rows.
    output_padding : int or (int, int)
        Rows and columns added at the end of the output, below the stride.
    groups, dilation : int or (int, int)
        As for `conv2d`.
    data_format, algorithm, num_threads, out : as for `conv2d`
        See there.

    Returns
    -------
    ndarray
        Shape (N, O, H', W') or (N, H', W', O) with H' = (H - 1) * stride - top - bottom + dilation * (kH - 1) + 1 +
        output_padding.

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv
    >>> fastconv.conv_transpose2d([[[1.0, 2.0]]], np.ones((1, 1, 2, 2)), stride=2)
    array([[[1., 1., 2., 2.],
            [1., 1., 2., 2.]]])
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
    """Run a convolution of signals backwards: `conv_transpose2d` without the height.

    Parameters
    ----------
    input : array_like
        Shape (N, C, L), or (N, L, C) with ``data_format='NLC'``; the batch axis may be left out.
    weight : array_like
        Shape (C, O / groups, k), or (k, O / groups, C).
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride, padding, output_padding, groups, dilation : int, ((int, int),) or str
        As for `conv_transpose2d`, along the one axis.
    data_format, algorithm, num_threads, out : as for `conv1d`
        See there.

    Returns
    -------
    ndarray
        Shape (N, O, L') or (N, L', O).

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.
    """
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
    """All gradients of `conv2d`, with respect to (input, weight, bias).

    Those of a call with an activation or a residual follow from the gradient before the activation.

    Parameters
    ----------
    grad_output : array_like
        The gradient with respect to the result, of its shape and element type.
    input : array_like
        The input of the forward call.
    weight : array_like
        The weight of the forward call.
    stride, padding, dilation, groups : int, pair or str
        As in the forward call.
    output_mask : sequence of three bool
        Which gradients are wanted.
    padding_mode, data_format, algorithm, num_threads : as for `conv2d`
        See there.

    Returns
    -------
    tuple of ndarray or None
        Gradients of the shapes of input and weight, and one of shape (O,); None where `output_mask` is False.

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv
    >>> image, weight = np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))
    >>> dx, dw, db = fastconv.conv2d_backward(np.ones((1, 1, 2, 2)), image, weight)
    >>> dx[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    >>> dw.shape, db
    ((1, 1, 2, 2), array([4.]))
    """
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
    """Convolve with kernels that take turns: output (y, x) is made with kernel [y mod tH, x mod tW].

    One tile is an ordinary convolution, as many tiles as outputs a locally connected layer.

    Parameters
    ----------
    input : array_like
        Shape (N, C, H, W), or (N, H, W, C) with ``data_format='NHWC'``; the batch axis may be left out.
    weight : array_like
        Shape (tH, tW, O, C, kH, kW), or (tH, tW, kH, kW, C, O) in NHWC.
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride, padding : int, pair or str
        As for `conv2d`.
    dilation, data_format, algorithm, num_threads, out : as for `conv2d`
        See there.

    Returns
    -------
    ndarray
        Shape and element type as from `conv2d` with one of the kernels.

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    References
    ----------
    Goodfellow, Bengio and Courville, "Deep Learning", MIT Press 2016, section 9.5.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv
    >>> weight = np.array([1.0, 10.0]).reshape(1, 2, 1, 1, 1, 1)  # two kernels of 1 x 1, in turn along a row
    >>> fastconv.tiled_conv2d([[[1.0, 1.0, 1.0, 1.0]]], weight)
    array([[[ 1., 10.,  1., 10.]]])
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
    unsafe = plain_array(out) if dtype not in FLOATS and is_ndarray(out) else None
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
    """Take the maximum of every window; NaN counts as larger than all, padding as smaller.

    Parameters
    ----------
    input : array_like
        Shape (N, C, H, W), or (N, H, W, C) with ``data_format='NHWC'``; the batch axis may be left out.
    kernel_size : int or (int, int)
        Rows and columns of the window.
    stride : int or (int, int), optional
        Rows and columns from one window to the next; by default `kernel_size`.
    padding, dilation : int, pair or str
        As for `conv2d`.
    ceil_mode : bool
        Round the size of the output up: the last window may reach beyond the padding.
    return_indices : bool
        Also give the place of the (first) maximum in its plane, row * width + column.
    data_format, num_threads, out : as for `conv2d`
        See there.

    Returns
    -------
    ndarray or (ndarray, ndarray)
        Shape (N, C, H', W') or (N, H', W', C), of the input's element type; with `return_indices` also the places, as
        int64.

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv
    >>> fastconv.max_pool2d(np.arange(16).reshape(1, 4, 4), 2)
    array([[[ 5,  7],
            [13, 15]]])
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
    """Take the mean of every window.

    Parameters
    ----------
    input : array_like
        Shape (N, C, H, W), or (N, H, W, C) with ``data_format='NHWC'``; the batch axis may be left out.
    kernel_size : int or (int, int)
        Rows and columns of the window.
    stride : int or (int, int), optional
        Rows and columns from one window to the next; by default `kernel_size`.
    padding, ceil_mode : int, pair, str or bool
        As for `max_pool2d`.
    count_include_pad : bool
        Count the padding as zeros; otherwise only pixels of the image are averaged.
    divisor_override : int, optional
        Divide every sum by this number in place of the window's size.
    data_format, num_threads, out : as for `conv2d`
        See there.

    Returns
    -------
    ndarray
        Shape (N, C, H', W') or (N, H', W', C), of the input's element type, which must be a float.

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv
    >>> fastconv.avg_pool2d(np.arange(16.0).reshape(1, 4, 4), 2)
    array([[[ 2.5,  4.5],
            [10.5, 12.5]]])
    """
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
    """Prepare a `conv2d` once, with packed weights, to be run on many inputs.

    Parameters
    ----------
    input_shape : sequence of int
        The shape of the inputs. The batch is only a hint: `ConvPlan.run` takes any.
    weight : array_like
        Shape (O, C / groups, kH, kW), or (kH, kW, C / groups, O) in NHWC; of the input's element type.
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride, padding, dilation, groups : int, pair or str
        As for `conv2d`.
    padding_mode, data_format, activation, algorithm : str
        As for `conv2d`.
    num_threads : int, optional
        Threads of every run, in place of `get_num_threads()`.

    Returns
    -------
    ConvPlan
        Holds a copy of the weights; the inputs must have the weight's element type.

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv
    >>> plan = fastconv.plan_conv2d((1, 3, 32, 32), np.ones((8, 3, 3, 3), np.float32), padding="same")
    >>> plan.run(np.ones((5, 3, 32, 32), np.float32)).shape
    (5, 8, 32, 32)
    """
    return prepared(
        "plan", input_shape, weight, bias, stride, padding, dilation, groups, padding_mode=padding_mode,
        data_format=data_format, activation=activation, algorithm=algorithm, num_threads=num_threads,
    )  # fmt: skip


def prepared(
    purpose: str,
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
    """`plan_conv2d` for a `purpose`, as `choice.choose_algorithm` takes it."""
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
        purpose=purpose,
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
    """Say how `conv2d` would do this convolution: algorithm, tiles, memory, multiply-adds and why; nothing is run.

    Parameters
    ----------
    input_shape : sequence of int
        The shape of the input.
    weight_shape : sequence of int
        The shape of the weight.
    stride, padding, dilation, groups : int, pair or str
        As for `conv2d`.
    dtype : dtype_like
        The element type of both.
    padding_mode, data_format, algorithm, num_threads : as for `conv2d`
        See there.

    Returns
    -------
    ConvExplanation
        A named tuple; printed, a few lines of text.

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.explain_conv2d((1, 3, 224, 224), (64, 3, 3, 3), padding=1).macs
    86704128
    >>> fastconv.explain_conv2d((1, 64, 56, 56), (64, 64, 3, 3), padding=1, dtype="float64").algorithm
    'direct'
    """
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
    """The version, the instruction sets built, available and in use, the threads and the OpenMP runtime.

    Returns
    -------
    dict
        Keys 'version', 'isa', 'isas_built', 'isas_available', 'threads' and 'openmp'.
    """
    from . import __version__

    return {
        "version": __version__,
        "isa": _native.isa_name(),
        "isas_built": _native.isas_built(),
        "isas_available": _native.isas_available(),
        "threads": threads.get_num_threads(),
        "openmp": _native.openmp_runtime(),
    }
