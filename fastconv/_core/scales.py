"""Scales and zero points as the caller writes them: what an 8-bit integer stands for, scale * (q - zero point).

Pure: nothing here calls compiled code, so that the reference has the same refusals.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ..errors import ConvError, ConvTypeError
from .record import NamedTuple
from .words import Shape, word

Array = NDArray[Any]
DType = np.dtype[Any]

BYTES: Final = (np.dtype(np.int8), np.dtype(np.uint8))
ACTIVATIONS: Final = ("linear", "relu", "relu6")


class Scales(NamedTuple):
    """All scales and zero points of an operation, checked."""

    input_zero: int
    weight_zero: Array  # int32, one for all or one an output channel
    multiplier: Array  # float32, as the weight's: float32(float32(input scale * weight scale) / output scale)
    zero_point: int  # of the result
    low: int  # of the result; an activation is in the limits
    high: int
    dtype: DType


def scales(
    name: str, input_dtype: DType, weight_dtype: DType, channels: int, input_scale: object, input_zero_point: object,
    weight_scale: object, weight_zero_point: object, output_scale: object, output_zero_point: object,
    activation: object,
) -> Scales:  # fmt: skip
    """Of an operation with so many output channels, or a refusal that names the argument."""
    require_bytes("input", input_dtype)
    require_bytes("weight", weight_dtype)
    ins = _scale(name, "input_scale", input_scale)
    weights = _scale(name, "weight_scale", weight_scale, channels)
    outs = _scale(name, "output_scale", output_scale)
    input_zero = int(_zero_point(name, "input_zero_point", input_zero_point, input_dtype)[0])
    weight_zero = _zero_point(name, "weight_zero_point", weight_zero_point, weight_dtype, channels)
    dtype = _output_dtype(output_zero_point, input_dtype)
    zero = int(_zero_point(name, "output_zero_point", output_zero_point, dtype)[0])
    with np.errstate(all="ignore"):
        multiplier = ins * weights / outs
        six = np.rint(np.float32(6) / outs[0])
    if not np.isfinite(multiplier).all():
        raise ConvError(
            f"{name}: input_scale * weight_scale / output_scale is beyond the range of float32; got output_scale="
            f"{outs[0]} with input_scale={ins[0]} and weight_scale of at most {weights.max()}."
        )
    return Scales(input_zero, weight_zero, multiplier, zero, *_limits(activation, zero, dtype, float(six)), dtype)


def require_bytes(name: str, dtype: DType) -> None:
    """Refuse arrays of anything but 8-bit integers."""
    if dtype not in BYTES:
        raise ConvTypeError(
            f"{name} must hold 8-bit integers, int8 or uint8, but got {name} of dtype {dtype}; quantise it first."
        )


def _output_dtype(zero_point: object, usual: DType) -> DType:
    """The result's type is that of its zero point, where that is a NumPy integer of 8 bits; else the input's."""
    own = getattr(zero_point, "dtype", None)
    return own if own in BYTES else usual


def _limits(activation: object, zero: int, dtype: DType, six: float) -> tuple[int, int]:
    """The range of a result behind an activation: relu(x) is max(q, zero point)."""
    info = np.iinfo(dtype)
    low, high = int(info.min), int(info.max)
    chosen = "linear" if activation is None else word("activation", activation, ACTIVATIONS)
    if chosen != "linear":
        low = max(low, zero)
    if chosen == "relu6":
        high = int(min(high, six + zero))
    return low, high


def _one_or_each(name: str, argument: str, shape: Shape, channels: int | None) -> None:
    """Refuse what is neither one value nor, where there may be one a channel, so many."""
    if shape in ((), (1,)) or (channels is not None and shape == (channels,)):
        return
    wanted = "one value" if channels is None else f"one value, or {channels}, one for each output channel"
    raise ConvError(f"{name}: {argument} must hold {wanted}, but got {argument} of shape {shape}.")


def _scale(name: str, argument: str, value: object, channels: int | None = None) -> Array:
    """Positive finite float32s."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        raise ConvTypeError(
            f"{name}: {argument} must be a real number"
            f"{'' if channels is None else ' or an array of them'}, but got {value!r} of type {type(value).__name__}."
        )
    _one_or_each(name, argument, array.shape, channels)
    with np.errstate(all="ignore"):
        found: Array = array.astype(np.float32).reshape(-1)
    wrong = ~(np.isfinite(found) & (found > 0))
    if wrong.any():
        at = int(wrong.argmax())
        where = f" at channel {at}" if found.size > 1 else ""
        raise ConvError(
            f"{name}: {argument} must be positive and finite as a float32, but got {array.reshape(-1)[at]}{where}."
        )
    return found


def _zero_point(name: str, argument: str, value: object, dtype: DType, channels: int | None = None) -> Array:
    """int32s within the range of a type."""
    array = np.asarray(value)
    if array.dtype.kind not in "iu":
        raise ConvTypeError(
            f"{name}: {argument} must be an integer{'' if channels is None else ' or an array of them'}, but got "
            f"{value!r} of type {type(value).__name__}."
        )
    _one_or_each(name, argument, array.shape, channels)
    info = np.iinfo(dtype)
    outside = (array < info.min) | (array > info.max)
    if np.any(outside):
        raise ConvError(
            f"{name}: {argument} must be within the range of {dtype}, {info.min} to {info.max}, but got "
            f"{array[outside].ravel()[0]}."
        )
    return array.astype(np.int32).reshape(-1)


def checked_bias(name: str, bias: object, channels: int) -> Array | None:
    """An int32 for each output channel, in units of input_scale * weight_scale."""
    if bias is None:
        return None
    array = np.asarray(bias)
    if array.dtype.kind not in "iu":
        raise ConvTypeError(
            f"{name}: bias must hold int32, in units of input_scale * weight_scale, but got bias of dtype "
            f"{array.dtype}; it is np.rint(bias / (input_scale * weight_scale)).astype('int32')."
        )
    if array.shape != (channels,):
        raise ConvError(
            f"{name}: bias must have shape ({channels},), one value for each output channel, but got bias of shape "
            f"{array.shape}."
        )
    info = np.iinfo(np.int32)
    if array.size and (int(array.max()) > info.max or int(array.min()) < info.min):
        raise ConvError(f"{name}: bias must hold int32, but got values from {array.min()} to {array.max()}.")
    return array.astype(np.int32)
