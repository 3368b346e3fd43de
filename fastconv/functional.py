"""The functions of the package under PyTorch's names and in its order: NumPy arrays in, NumPy arrays out.

A signature, what it means, and one call of `_core.ask`, which takes the caller's words to a plan. Options mean the same
everywhere, and are described with `conv2d`. `pooling` and `plans` hold the functions of these subjects, and all of them
are found here too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from numpy.typing import ArrayLike

from . import _native
from ._core import ask, ask_gradients, threads
from ._core.arrays import Array
from ._core.documented import like
from ._core.words import Padding, Size
from .plans import (
    explain_conv1d,
    explain_conv2d,
    explain_conv3d,
    plan_conv1d,
    plan_conv2d,
    plan_conv3d,
    plan_conv_transpose1d,
    plan_conv_transpose2d,
    plan_conv_transpose3d,
)
from .pooling import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d

__all__ = [
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "conv1d", "conv1d_backward", "conv2d", "conv2d_backward",
    "conv3d", "conv3d_backward", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "explain_conv1d",
    "explain_conv2d", "explain_conv3d", "info", "max_pool1d", "max_pool2d", "max_pool3d", "plan_conv1d", "plan_conv2d",
    "plan_conv3d", "plan_conv_transpose1d", "plan_conv_transpose2d", "plan_conv_transpose3d", "tiled_conv2d",
]  # fmt: skip


# ---- convolution -------------------------------------------------------------------------------------------------


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
    padding_value: float = 0,
    data_format: str = "NCHW",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
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
    padding_mode : {'zeros', 'constant', 'reflect', 'replicate', 'circular', 'symmetric'}
        What the padding holds. It may be wider than the image: the repetition then goes on, as in `numpy.pad`.
    padding_value : int or float
        What a 'constant' padding holds, of the input's element type; an infinity or NaN reaches every output whose
        window holds a part of the padding. With other modes it must be left out; a constant 0 is 'zeros'.
    data_format : {'NCHW', 'NHWC', 'channels_first', 'channels_last'}
        The order of the axes of all arrays.
    activation : {None, 'relu', 'relu6', 'leaky_relu', 'silu', 'sigmoid', 'hardswish', 'tanh', 'gelu', 'gelu_tanh'}
        Applied before the result is stored; the slope of 'leaky_relu' is 0.01. Integers take the first three alone.
        'linear', 'swish', 'hard_swish' and 'hard_silu', Keras' words, mean None, 'silu' and 'hardswish'.
    residual : array_like, optional
        An array of the result's shape and element type, added before the activation.
    algorithm : str
        'auto', 'direct', 'winograd', 'strassen' or 'fft'; 'winograd:2x2' and the like ask for a variant of it by name.
        'auto' takes what `explain_conv2d` says.
    num_threads : int, optional
        Threads for this call, in place of `get_num_threads()`.
    max_workspace : int, optional
        Bytes of scratch memory that the call may take beside arrays and packed weights, 30 MiB as a rule: fewer
        threads, smaller blocks, and where 'auto' leaves the choice another algorithm keep to it. Too few are refused,
        and the least possible is named.
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

    'winograd' is F(4x4, 3x3) of Lavin and Gray at stride 1, in images and volumes, forward and for both gradients;
    'winograd:2x2' their F(2x2, 3x3) with smaller tiles and errors; 'winograd:2x2 at stride 2' is theirs for 3x3 kernels
    and for the input gradients of these and 4x4 ones, 'winograd:4x4 at stride 2' that of 3x3 ones in larger tiles;
    'winograd:rows' works along the rows of kernels of seven columns at stride 2 with up to four channels.
    'strassen' multiplies the blocks of a 1x1 convolution, whose channels must divide, in 7 products for 8,
    'strassen:twice' in 49 for 64. All these are for float32 alone. 'fft' works by Fourier transforms of tiles, in
    float32 and float64: 'fft:pairs-128' and the like by fast ones, which large kernels of few channels take by
    themselves, 'fft:36' and the like by products with their matrices, only where asked for.

    References
    ----------
    Mathieu, Henaff and LeCun, "Fast Training of Convolutional Networks through FFTs", ICLR 2014.
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
    return ask.convolve(
        2, input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation, residual,
        algorithm, num_threads, out, padding_value, max_workspace,
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
    padding_value: float = 0,
    data_format: str = "NCW",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    out: Array | None = None,
) -> Array:
    """Convolve signals with filters: `conv2d` without the height.

    Parameters
    ----------
    input : array_like
        Shape (N, C, W), or (N, W, C) with ``data_format='NWC'``; the batch axis may be left out.
    weight : array_like
        Shape (O, C / groups, kW), or (kW, C / groups, O).
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride : int
        Samples from one output to the next.
    padding : int, ((int, int),) or str
        Samples of padding on both sides, ((left, right),), a word as for `conv2d`, or 'causal': all of it before the
        signal, so that no output looks at a later sample.
    dilation, groups : int
        As for `conv2d`.
    padding_mode : {'zeros', 'constant', 'reflect', 'replicate', 'circular', 'symmetric'}
        What the padding holds. It may be wider than the signal: the repetition then goes on, as in `numpy.pad`.
    padding_value : int or float
        What a 'constant' padding holds.
    data_format : {'NCW', 'NWC', 'NCL', 'NLC', 'channels_first', 'channels_last'}
        The order of the axes.
    activation, residual, algorithm, num_threads, max_workspace, out : as for `conv2d`
        See there.

    Returns
    -------
    ndarray
        Shape (N, O, W') or (N, W', O).

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Examples
    --------
    >>> import fastconv
    >>> fastconv.conv1d([[1.0, 2.0, 4.0, 8.0]], [[[1.0, 1.0]]])
    array([[ 3.,  6., 12.]])
    >>> fastconv.conv1d([[1.0, 2.0, 4.0, 8.0]], [[[1.0, 1.0]]], padding="causal")
    array([[ 1.,  3.,  6., 12.]])
    """
    return ask.convolve(
        1, input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation, residual,
        algorithm, num_threads, out, padding_value, max_workspace,
    )  # fmt: skip


def conv3d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCDHW",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    out: Array | None = None,
) -> Array:
    """Convolve volumes or clips with filters: `conv2d` with a depth.

    Parameters
    ----------
    input : array_like
        Shape (N, C, D, H, W), or (N, D, H, W, C) with ``data_format='NDHWC'``; the batch axis may be left out.
    weight : array_like
        Shape (O, C / groups, kD, kH, kW), or (kD, kH, kW, C / groups, O).
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride : int or (int, int, int)
        Slices, rows and columns from one output to the next.
    padding : int, (int, int, int), ((int, int), (int, int), (int, int)) or str
        For all sides, (depth, height, width), ((front, back), (top, bottom), (left, right)), or a word as for `conv2d`.
    dilation, groups : int or (int, int, int)
        As for `conv2d`.
    padding_mode : {'zeros', 'constant', 'reflect', 'replicate', 'circular', 'symmetric'}
        What the padding holds. It may be wider than the volume: the repetition then goes on, as in `numpy.pad`.
    padding_value : int or float
        What a 'constant' padding holds.
    data_format : {'NCDHW', 'NDHWC', 'channels_first', 'channels_last'}
        The order of the axes.
    activation, residual, algorithm, num_threads, max_workspace, out : as for `conv2d`
        See there.

    Returns
    -------
    ndarray
        Shape (N, O, D', H', W') or (N, D', H', W', O).

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import fastconv
    >>> fastconv.conv3d(np.arange(8.0).reshape(1, 2, 2, 2), np.ones((1, 1, 2, 2, 2)))
    array([[[[28.]]]])
    """
    return ask.convolve(
        3, input, weight, bias, stride, padding, dilation, groups, padding_mode, data_format, activation, residual,
        algorithm, num_threads, out, padding_value, max_workspace,
    )  # fmt: skip


# ---- transposed convolution --------------------------------------------------------------------------------------


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
    output_size: Size | None = None,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
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
        What is cut off the output's borders; 'valid' cuts nothing, 'same' gives H * stride + output_padding rows.
    output_padding : int or (int, int)
        Rows and columns added at the end of the output, below the stride.
    groups, dilation : int or (int, int)
        As for `conv2d`.
    output_size : int or (int, int), optional
        Rows and columns of the output, in place of `output_padding`: one of those sizes that the convolution which is
        transposed makes the input of. It goes with padding in numbers.
    data_format, algorithm, num_threads, max_workspace, out : as for `conv2d`
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
    return ask.transpose(
        2, input, weight, bias, stride, padding, output_padding, groups, dilation, data_format, algorithm, num_threads,
        out, output_size, max_workspace,
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
    output_size: Size | None = None,
    data_format: str = "NCW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    out: Array | None = None,
) -> Array:
    """Run a convolution of signals backwards: `conv_transpose2d` without the height.

    Parameters
    ----------
    input : array_like
        Shape (N, C, W), or (N, W, C) with ``data_format='NWC'``; the batch axis may be left out.
    weight : array_like
        Shape (C, O / groups, kW), or (kW, O / groups, C).
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride, padding, output_padding, groups, dilation, output_size : int, ((int, int),) or str
        As for `conv_transpose2d`, along the one axis.
    data_format, algorithm, num_threads, max_workspace, out : as for `conv1d`
        See there.

    Returns
    -------
    ndarray
        Shape (N, O, W') or (N, W', O).

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.
    """
    return ask.transpose(
        1, input, weight, bias, stride, padding, output_padding, groups, dilation, data_format, algorithm, num_threads,
        out, output_size, max_workspace,
    )  # fmt: skip


def conv_transpose3d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    output_size: Size | None = None,
    data_format: str = "NCDHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    out: Array | None = None,
) -> Array:
    """Run a convolution of volumes backwards: `conv_transpose2d` with a depth.

    Parameters
    ----------
    input : array_like
        Shape (N, C, D, H, W), or (N, D, H, W, C) with ``data_format='NDHWC'``; the batch axis may be left out.
    weight : array_like
        Shape (C, O / groups, kD, kH, kW), or (kD, kH, kW, O / groups, C).
    bias : array_like, optional
        Shape (O,): one value for each output channel.
    stride, padding, output_padding, groups, dilation, output_size : int, three or str
        As for `conv_transpose2d`, in the order depth, height, width.
    data_format, algorithm, num_threads, max_workspace, out : as for `conv3d`
        See there.

    Returns
    -------
    ndarray
        Shape (N, O, D', H', W') or (N, D', H', W', O).

    Raises
    ------
    ConvError, ConvTypeError
        For values, shapes or types that do not fit.
    """
    return ask.transpose(
        3, input, weight, bias, stride, padding, output_padding, groups, dilation, data_format, algorithm, num_threads,
        out, output_size, max_workspace,
    )  # fmt: skip


# ---- gradients ---------------------------------------------------------------------------------------------------


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
    padding_value: float = 0,
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
    padding_mode, padding_value, data_format, algorithm, num_threads : as for `conv2d`
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
    return ask_gradients.backward(
        2, grad_output, input, weight, stride, padding, dilation, groups, output_mask, padding_mode, data_format,
        algorithm, num_threads, padding_value,
    )  # fmt: skip


@like(conv2d_backward, 1)
def conv1d_backward(
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
    padding_value: float = 0,
    data_format: str = "NCW",
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    return ask_gradients.backward(
        1, grad_output, input, weight, stride, padding, dilation, groups, output_mask, padding_mode, data_format,
        algorithm, num_threads, padding_value,
    )  # fmt: skip


@like(conv2d_backward, 3)
def conv3d_backward(
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
    padding_value: float = 0,
    data_format: str = "NCDHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    return ask_gradients.backward(
        3, grad_output, input, weight, stride, padding, dilation, groups, output_mask, padding_mode, data_format,
        algorithm, num_threads, padding_value,
    )  # fmt: skip


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
    max_workspace: int | None = None,
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
    dilation, data_format, algorithm, num_threads, max_workspace, out : as for `conv2d`
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
    return ask.convolve_tiled(
        input, weight, bias, stride, padding, dilation, data_format, algorithm, num_threads, out, max_workspace,
    )  # fmt: skip


# By the number of spatial axes.
CONVOLUTIONS: Final[dict[int, Callable[..., Any]]] = {1: conv1d, 2: conv2d, 3: conv3d}
TRANSPOSED: Final[dict[int, Callable[..., Any]]] = {1: conv_transpose1d, 2: conv_transpose2d, 3: conv_transpose3d}


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
