"""The gradients, one function each, as in `torch.nn.grad`: sizes in place of the arrays that are not needed.

Options mean what they mean in `functional`. A size is the shape of the array in the caller's axes.
"""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from ._core import ask_gradients, ask_pooling, ask_tiled
from ._core.arrays import Array
from ._core.documented import like
from ._core.words import Padding, Size


def conv2d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of `conv2d` with respect to its input of shape `input_size`.

    Parameters
    ----------
    input_size : sequence of int
        The shape of the input.
    weight : array_like
        The weight of the forward call.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding, dilation, groups : int, pair or str
        As in the call of `conv2d`.
    padding_mode, padding_value, data_format, algorithm, num_threads : as for `conv2d`
        See there.
    out : ndarray, optional
        An array of the result's shape and element type that receives it; it may overlap the inputs.
    accumulate : bool
        Add the gradient to what `out` holds, which then must be given: the sum of both, rounded once more. Integers
        that leave their range are refused, and `out` is as it was.

    Returns
    -------
    ndarray
        Of shape `input_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv2d_input((1, 1, 1, 3), np.array([[[[1.0, 10.0]]]]), np.array([[[[1.0, 2.0]]]]))
    array([[[[ 1., 12., 20.]]]])
    """
    return ask_gradients.input_gradient(
        2, input_size, weight, grad_output, stride, padding, dilation, groups, padding_mode, data_format, algorithm,
        num_threads, padding_value, out, accumulate,
    )  # fmt: skip


@like(conv2d_input, 1)
def conv1d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    return ask_gradients.input_gradient(
        1, input_size, weight, grad_output, stride, padding, dilation, groups, padding_mode, data_format, algorithm,
        num_threads, padding_value, out, accumulate,
    )  # fmt: skip


@like(conv2d_input, 3)
def conv3d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCDHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    return ask_gradients.input_gradient(
        3, input_size, weight, grad_output, stride, padding, dilation, groups, padding_mode, data_format, algorithm,
        num_threads, padding_value, out, accumulate,
    )  # fmt: skip


def conv2d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of `conv2d` with respect to its weight of shape `weight_size`.

    Parameters
    ----------
    input : array_like
        The input of the forward call.
    weight_size : sequence of int
        The shape of the weight.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding, dilation, groups : int, pair or str
        As in the call of `conv2d`.
    padding_mode, padding_value, data_format, algorithm, num_threads : as for `conv2d`
        See there.
    out : ndarray, optional
        An array of the result's shape and element type that receives it; it may overlap the inputs.
    accumulate : bool
        Add the gradient to what `out` holds, which then must be given: the sum of both, rounded once more. Integers
        that leave their range are refused, and `out` is as it was.

    Returns
    -------
    ndarray
        Of shape `weight_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv2d_weight(np.array([[[[1.0, 2.0, 4.0]]]]), (1, 1, 1, 2), np.array([[[[1.0, 10.0]]]]))
    array([[[[21., 42.]]]])
    """
    return ask_gradients.weight_gradient(
        2, input, weight_size, grad_output, stride, padding, dilation, groups, padding_mode, data_format, algorithm,
        num_threads, padding_value, out, accumulate,
    )  # fmt: skip


@like(conv2d_weight, 1)
def conv1d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    return ask_gradients.weight_gradient(
        1, input, weight_size, grad_output, stride, padding, dilation, groups, padding_mode, data_format, algorithm,
        num_threads, padding_value, out, accumulate,
    )  # fmt: skip


@like(conv2d_weight, 3)
def conv3d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "NCDHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    return ask_gradients.weight_gradient(
        3, input, weight_size, grad_output, stride, padding, dilation, groups, padding_mode, data_format, algorithm,
        num_threads, padding_value, out, accumulate,
    )  # fmt: skip


# ---- transposed convolution --------------------------------------------------------------------------------------


def conv_transpose2d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
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
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of `conv_transpose2d` with respect to its input: the convolution that it transposes.

    Parameters
    ----------
    input_size : sequence of int
        The shape of the input.
    weight : array_like
        The weight of the forward call.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding, output_padding, groups, dilation, output_size : int, pair or str
        As in the call of `conv_transpose2d`.
    data_format, algorithm, num_threads : as for `conv2d`
        See there.
    out : ndarray, optional
        An array of the result's shape and element type that receives it; it may overlap the inputs.
    accumulate : bool
        Add the gradient to what `out` holds, which then must be given: the sum of both, rounded once more. Integers
        that leave their range are refused, and `out` is as it was.

    Returns
    -------
    ndarray
        Of shape `input_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.
    """
    return ask_gradients.transposed_input_gradient(
        2, input_size, weight, grad_output, stride, padding, output_padding, groups, dilation, data_format, algorithm,
        num_threads, output_size, out, accumulate,
    )  # fmt: skip


@like(conv_transpose2d_input, 1)
def conv_transpose1d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
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
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    return ask_gradients.transposed_input_gradient(
        1, input_size, weight, grad_output, stride, padding, output_padding, groups, dilation, data_format, algorithm,
        num_threads, output_size, out, accumulate,
    )  # fmt: skip


@like(conv_transpose2d_input, 3)
def conv_transpose3d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
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
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    return ask_gradients.transposed_input_gradient(
        3, input_size, weight, grad_output, stride, padding, output_padding, groups, dilation, data_format, algorithm,
        num_threads, output_size, out, accumulate,
    )  # fmt: skip


def conv_transpose2d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
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
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of `conv_transpose2d` with respect to its weight of shape `weight_size`.

    Parameters
    ----------
    input : array_like
        The input of the forward call.
    weight_size : sequence of int
        The shape of the weight.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding, output_padding, groups, dilation, output_size : int, pair or str
        As in the call of `conv_transpose2d`.
    data_format, algorithm, num_threads : as for `conv2d`
        See there.
    out : ndarray, optional
        An array of the result's shape and element type that receives it; it may overlap the inputs.
    accumulate : bool
        Add the gradient to what `out` holds, which then must be given: the sum of both, rounded once more. Integers
        that leave their range are refused, and `out` is as it was.

    Returns
    -------
    ndarray
        Of shape `weight_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.
    """
    return ask_gradients.transposed_weight_gradient(
        2, input, weight_size, grad_output, stride, padding, output_padding, groups, dilation, data_format, algorithm,
        num_threads, output_size, out, accumulate,
    )  # fmt: skip


@like(conv_transpose2d_weight, 1)
def conv_transpose1d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
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
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    return ask_gradients.transposed_weight_gradient(
        1, input, weight_size, grad_output, stride, padding, output_padding, groups, dilation, data_format, algorithm,
        num_threads, output_size, out, accumulate,
    )  # fmt: skip


@like(conv_transpose2d_weight, 3)
def conv_transpose3d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
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
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    return ask_gradients.transposed_weight_gradient(
        3, input, weight_size, grad_output, stride, padding, output_padding, groups, dilation, data_format, algorithm,
        num_threads, output_size, out, accumulate,
    )  # fmt: skip


# ---- tiled convolution -------------------------------------------------------------------------------------------


def tiled_conv2d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    *,
    dilation: Size = 1,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of `tiled_conv2d` with respect to its input of shape `input_size`: the sum over the tiles.

    Parameters
    ----------
    input_size : sequence of int
        The shape of the input.
    weight : array_like
        The weight of the forward call.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding : int, pair or str
        As in the call of `tiled_conv2d`.
    dilation, data_format, algorithm, num_threads : as for `tiled_conv2d`
        See there.
    out : ndarray, optional
        An array of the result's shape and element type that receives it; it may overlap the inputs.
    accumulate : bool
        Add the gradient to what `out` holds, which then must be given: the sum of both, rounded once more. Integers
        that leave their range are refused, and `out` is as it was.

    Returns
    -------
    ndarray
        Of shape `input_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.
    """
    return ask_tiled.tiled_input_gradient(
        input_size, weight, grad_output, stride, padding, dilation, data_format, algorithm, num_threads, out,
        accumulate,
    )  # fmt: skip


def tiled_conv2d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    *,
    dilation: Size = 1,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of `tiled_conv2d` with respect to its weight of shape `weight_size`.

    Parameters
    ----------
    input : array_like
        The input of the forward call.
    weight_size : sequence of int
        The shape of the weight.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding : int, pair or str
        As in the call of `tiled_conv2d`.
    dilation, data_format, algorithm, num_threads : as for `tiled_conv2d`
        See there.
    out : ndarray, optional
        An array of the result's shape and element type that receives it; it may overlap the inputs.
    accumulate : bool
        Add the gradient to what `out` holds, which then must be given: the sum of both, rounded once more. Integers
        that leave their range are refused, and `out` is as it was.

    Returns
    -------
    ndarray
        Of shape `weight_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.
    """
    return ask_tiled.tiled_weight_gradient(
        input, weight_size, grad_output, stride, padding, dilation, data_format, algorithm, num_threads, out,
        accumulate,
    )  # fmt: skip


# ---- pooling -----------------------------------------------------------------------------------------------------


def max_pool2d_input(
    input: ArrayLike,
    kernel_size: Size,
    grad_output: ArrayLike,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    data_format: str = "NCHW",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of `max_pool2d` with respect to its input: a value goes to the (first) maximum of its window.

    Parameters
    ----------
    input : array_like
        The input of the forward call.
    kernel_size : int or (int, int)
        Rows and columns of the window.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding, dilation, ceil_mode : int, pair, str or bool
        As in the call of `max_pool2d`.
    data_format, num_threads : as for `conv2d`
        See there.
    out : ndarray, optional
        An array of the result's shape and element type that receives it; it may overlap the inputs.
    accumulate : bool
        Add the gradient to what `out` holds, which then must be given: the sum of both, rounded once more. Integers
        that leave their range are refused, and `out` is as it was.

    Returns
    -------
    ndarray
        Of the shape of `input` and the element type of `grad_output`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.
    """
    return ask_pooling.max_pool_gradient(
        2, input, kernel_size, grad_output, stride, padding, dilation, ceil_mode, data_format, num_threads, out,
        accumulate,
    )  # fmt: skip


@like(max_pool2d_input, 1)
def max_pool1d_input(
    input: ArrayLike,
    kernel_size: Size,
    grad_output: ArrayLike,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    data_format: str = "NCW",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    return ask_pooling.max_pool_gradient(
        1, input, kernel_size, grad_output, stride, padding, dilation, ceil_mode, data_format, num_threads, out,
        accumulate,
    )  # fmt: skip


@like(max_pool2d_input, 3)
def max_pool3d_input(
    input: ArrayLike,
    kernel_size: Size,
    grad_output: ArrayLike,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    data_format: str = "NCDHW",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    return ask_pooling.max_pool_gradient(
        3, input, kernel_size, grad_output, stride, padding, dilation, ceil_mode, data_format, num_threads, out,
        accumulate,
    )  # fmt: skip


def avg_pool2d_input(
    input_size: Sequence[int],
    kernel_size: Size,
    grad_output: ArrayLike,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "NCHW",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of `avg_pool2d` with respect to its input of shape `input_size`.

    Parameters
    ----------
    input_size : sequence of int
        The shape of the input.
    kernel_size : int or (int, int)
        Rows and columns of the window.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding, ceil_mode, count_include_pad, divisor_override : int, pair, str or bool
        As in the call of `avg_pool2d`.
    data_format, num_threads : as for `conv2d`
        See there.
    out : ndarray, optional
        An array of the result's shape and element type that receives it; it may overlap the inputs.
    accumulate : bool
        Add the gradient to what `out` holds, which then must be given: the sum of both, rounded once more. Integers
        that leave their range are refused, and `out` is as it was.

    Returns
    -------
    ndarray
        Of shape `input_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.
    """
    return ask_pooling.avg_pool_gradient(
        2, input_size, kernel_size, grad_output, stride, padding, ceil_mode, count_include_pad, divisor_override,
        data_format, num_threads, out, accumulate,
    )  # fmt: skip


@like(avg_pool2d_input, 1)
def avg_pool1d_input(
    input_size: Sequence[int],
    kernel_size: Size,
    grad_output: ArrayLike,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "NCW",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    return ask_pooling.avg_pool_gradient(
        1, input_size, kernel_size, grad_output, stride, padding, ceil_mode, count_include_pad, divisor_override,
        data_format, num_threads, out, accumulate,
    )  # fmt: skip


@like(avg_pool2d_input, 3)
def avg_pool3d_input(
    input_size: Sequence[int],
    kernel_size: Size,
    grad_output: ArrayLike,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "NCDHW",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    return ask_pooling.avg_pool_gradient(
        3, input_size, kernel_size, grad_output, stride, padding, ceil_mode, count_include_pad, divisor_override,
        data_format, num_threads, out, accumulate,
    )  # fmt: skip
