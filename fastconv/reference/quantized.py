"""The NumPy twins of `fastconv.quantized`: exact sums in int64, and the requantisation as the standard writes it."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._core.scales import Scales, checked_bias, scales
from .._core.words import Padding, Size
from ..errors import ConvError
from . import _channels_last, _conv, _of_axes

Array = NDArray[Any]


def requantised(sums: Array, s: Scales, axis: int) -> Array:
    """saturate(rint(float32(sum) * M) + zero point), with one M a channel, along an axis, or one for all."""
    limits = np.iinfo(np.int32)
    if sums.size and not limits.min <= sums.min() <= sums.max() <= limits.max:
        raise ConvError(f"the sums leave int32: they range from {sums.min()} to {sums.max()}")
    multiplier = s.multiplier.reshape(-1, *(1,) * (sums.ndim - 1 - axis % sums.ndim))
    with np.errstate(over="ignore"):
        values = np.rint(sums.astype(np.int32).astype(np.float32) * multiplier)
    # float64 holds the rounded values and their sums with a byte.
    return np.clip(values.astype(np.float64) + s.zero_point, s.low, s.high).astype(s.dtype)


def _qconv(
    axes: int,
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
    data_format: str = "channels_first",
    activation: str | None = None,
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """The convolution of (input - zero point) with (weight - zero point), plus the bias, as bytes again."""
    x, w, last = np.asarray(input), np.asarray(weight), _channels_last(data_format)
    channels = w.shape[-1 if last else 0]
    s = scales(
        f"quantized.conv{axes}d", x.dtype, w.dtype, channels, input_scale, input_zero_point, weight_scale,
        weight_zero_point, output_scale, output_zero_point, activation,
    )  # fmt: skip
    zero = s.weight_zero if last else s.weight_zero.reshape(-1, *(1,) * (w.ndim - 1))
    sums = _conv(
        axes, x.astype(np.int64) - s.input_zero, w.astype(np.int64) - zero,
        checked_bias(f"quantized.conv{axes}d", bias, channels), stride, padding, dilation, groups,
        data_format=data_format,
    )  # fmt: skip
    return _into(requantised(sums, s, sums.ndim - 1 if last else sums.ndim - axes - 1), out)


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
    """(input - zero point) @ (weight - zero point).T + bias, as bytes again."""
    x, w = np.asarray(input), np.asarray(weight)
    s = scales(
        "quantized.linear", x.dtype, w.dtype, len(w), input_scale, input_zero_point, weight_scale, weight_zero_point,
        output_scale, output_zero_point, activation,
    )  # fmt: skip
    b = checked_bias("quantized.linear", bias, len(w))
    sums = (x.astype(np.int64) - s.input_zero) @ (w.astype(np.int64) - s.weight_zero.reshape(-1, 1)).T
    return _into(requantised(sums if b is None else sums + b, s, -1), out)


def _into(y: Array, out: Array | None) -> Array:
    if out is None:
        return y
    out[...] = y
    return out


conv1d, conv2d, conv3d = (_of_axes(f"conv{n}d", _qconv, n) for n in (1, 2, 3))
