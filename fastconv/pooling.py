"""Poolings: the maximum or the mean of every window, of one, two or three axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from numpy.typing import ArrayLike

from ._core import ask_pooling
from ._core.arrays import Array
from ._core.documented import like
from ._core.words import Padding, Size


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
    return ask_pooling.max_pool(
        2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, data_format, num_threads, out
    )


@like(max_pool2d, 1)
def max_pool1d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "NCW",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    return ask_pooling.max_pool(
        1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, data_format, num_threads, out
    )


@like(max_pool2d, 3)
def max_pool3d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "NCDHW",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    return ask_pooling.max_pool(
        3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices, data_format, num_threads, out
    )


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
    return ask_pooling.avg_pool(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, data_format,
        num_threads, out,
    )  # fmt: skip


@like(avg_pool2d, 1)
def avg_pool1d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "NCW",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    return ask_pooling.avg_pool(
        1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, data_format,
        num_threads, out,
    )  # fmt: skip


@like(avg_pool2d, 3)
def avg_pool3d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "NCDHW",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    return ask_pooling.avg_pool(
        3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, data_format,
        num_threads, out,
    )  # fmt: skip


# By the number of spatial axes.
MAXIMA: Final[dict[int, Callable[..., Any]]] = {1: max_pool1d, 2: max_pool2d, 3: max_pool3d}
MEANS: Final[dict[int, Callable[..., Any]]] = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}
