"""Convolutions of 8-bit integers that stand for real numbers, scale * (q - zero point): ONNX's QLinearConv.

The sums are exact 32-bit integers; with M = float32(float32(input_scale * weight_scale) / output_scale) the result is
saturate(rint(float32(sum) * M) + output_zero_point), rounded half to even. Everything is exact or rounded in one stated
place, so that the bits depend on nothing: not on threads, not on the machine.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from ._core import ask_quantised
from ._core.arrays import Array
from ._core.documented import like
from ._core.words import Padding, Size

__all__ = ["conv1d", "conv2d", "conv3d", "linear"]


def conv2d(
    input: ArrayLike,
    input_scale: ArrayLike,
    input_zero_point: ArrayLike,
    weight: ArrayLike,
    weight_scale: ArrayLike,
    weight_zero_point: ArrayLike,
    output_scale: ArrayLike,
    output_zero_point: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    data_format: str = "NCHW",
    activation: str | None = None,
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """Convolve quantised images with quantised filters, bit for bit as ONNX's QLinearConv says.

    Parameters
    ----------
    input : array_like
        Of int8 or uint8; shape (N, C, H, W), or (N, H, W, C) with ``data_format='NHWC'``; the batch axis may be left
        out. Padding stands for 0: it holds the input's zero point.
    input_scale : float
        Positive: the value of one step of the input.
    input_zero_point : int
        The integer that stands for 0, within the range of the input's type.
    weight : array_like
        Of int8 or uint8; shape (O, C / groups, kH, kW), or (kH, kW, C / groups, O) in NHWC.
    weight_scale : float or array_like
        Positive; one for all, or shape (O,).
    weight_zero_point : int or array_like
        One for all, or shape (O,).
    output_scale : float
        Positive: the value of one step of the result.
    output_zero_point : int
        The integer that stands for 0 in the result. A NumPy integer of int8 or uint8 makes that the result's type; any
        other leaves it the input's.
    bias : array_like, optional
        Integers of shape (O,) within int32, in units of ``input_scale * weight_scale``.
    stride : int or (int, int)
        As of `fastconv.conv2d`, as the next three.
    padding : int, (int, int), ((int, int), (int, int)) or str
        Rows and columns of padding.
    dilation : int or (int, int)
        Distance between neighbouring taps.
    groups : int
        Groups of channels that are convolved apart.
    data_format : {'NCHW', 'NHWC', 'channels_first', 'channels_last'}
        The order of the axes of all arrays.
    activation : {None, 'relu', 'relu6'}
        Limits of the result, as integers: from its zero point on, and up to the integer nearest to 6.
    num_threads : int, optional
        Threads for this call, in place of `get_num_threads()`.
    out : ndarray, optional
        An array of the result's shape and element type that receives it; it may overlap the inputs.

    Returns
    -------
    ndarray
        Shape (N, O, H', W') or (N, H', W', O), of int8 or uint8.

    Raises
    ------
    ConvError
        For scales that are not positive and finite, zero points out of range, values and shapes that do not fit
        together, and sums that leave int32.
    ConvTypeError
        For a type or element type that is not taken.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import quantized
    >>> x = np.full((1, 1, 3, 3), 130, np.uint8)  # stands for 0.02
    >>> w = np.full((1, 1, 3, 3), 100, np.int8)  # stands for 0.5
    >>> quantized.conv2d(x, 0.01, 128, w, 0.005, 0, 0.001, 0)  # 9 * 0.02 * 0.5 = 0.09
    array([[[[90]]]], dtype=uint8)
    """
    return ask_quantised.convolve(
        2, input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, output_scale,
        output_zero_point, bias, stride, padding, dilation, groups, data_format, activation, num_threads, out,
    )  # fmt: skip


@like(conv2d, 1)
def conv1d(
    input: ArrayLike,
    input_scale: ArrayLike,
    input_zero_point: ArrayLike,
    weight: ArrayLike,
    weight_scale: ArrayLike,
    weight_zero_point: ArrayLike,
    output_scale: ArrayLike,
    output_zero_point: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    data_format: str = "NCW",
    activation: str | None = None,
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    return ask_quantised.convolve(
        1, input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, output_scale,
        output_zero_point, bias, stride, padding, dilation, groups, data_format, activation, num_threads, out,
    )  # fmt: skip


@like(conv2d, 3)
def conv3d(
    input: ArrayLike,
    input_scale: ArrayLike,
    input_zero_point: ArrayLike,
    weight: ArrayLike,
    weight_scale: ArrayLike,
    weight_zero_point: ArrayLike,
    output_scale: ArrayLike,
    output_zero_point: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    data_format: str = "NCDHW",
    activation: str | None = None,
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    return ask_quantised.convolve(
        3, input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, output_scale,
        output_zero_point, bias, stride, padding, dilation, groups, data_format, activation, num_threads, out,
    )  # fmt: skip


def linear(
    input: ArrayLike,
    input_scale: ArrayLike,
    input_zero_point: ArrayLike,
    weight: ArrayLike,
    weight_scale: ArrayLike,
    weight_zero_point: ArrayLike,
    output_scale: ArrayLike,
    output_zero_point: ArrayLike,
    bias: ArrayLike | None = None,
    *,
    activation: str | None = None,
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """The dense layer input @ weight.T + bias of quantised arrays, bit for bit as ONNX's QLinearMatMul says.

    Parameters
    ----------
    input : array_like
        Of int8 or uint8; shape (..., I).
    input_scale : float
        Positive: the value of one step of the input.
    input_zero_point : int
        The integer that stands for 0.
    weight : array_like
        Of int8 or uint8; shape (O, I).
    weight_scale : float or array_like
        Positive; one for all, or shape (O,).
    weight_zero_point : int or array_like
        One for all, or shape (O,).
    output_scale : float
        Positive: the value of one step of the result.
    output_zero_point : int
        As of `conv2d`: its type, if it has one of 8 bits, is the result's.
    bias : array_like, optional
        Integers of shape (O,) within int32, in units of ``input_scale * weight_scale``.
    activation : {None, 'relu', 'relu6'}
        Limits of the result.
    num_threads : int, optional
        Threads for this call, in place of `get_num_threads()`.
    out : ndarray, optional
        An array of the result's shape and element type that receives it; it may overlap the inputs.

    Returns
    -------
    ndarray
        Shape (..., O), of int8 or uint8.

    Raises
    ------
    ConvError
        For scales that are not positive and finite, zero points out of range, shapes that do not fit together, and
        sums that leave int32.
    ConvTypeError
        For a type or element type that is not taken.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import quantized
    >>> quantized.linear(np.array([[3, 5]], np.int8), 1.0, 0, np.array([[2, 1]], np.int8), 1.0, 0, 2.0, 0)  # 11 / 2
    array([[6]], dtype=int8)
    """
    return ask_quantised.linear(
        input, input_scale, input_zero_point, weight, weight_scale, weight_zero_point, output_scale, output_zero_point,
        bias, activation, num_threads, out,
    )  # fmt: skip
