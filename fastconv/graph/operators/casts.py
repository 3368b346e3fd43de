"""Element types: conversions and constants."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ..._core.arrays import Array
from ..errors import onnx_package
from ..tensors import STRING, element_type, numpy_type
from .moving import cast as cast_natively
from .registry import Call, operator

SATURATING: Final = {17: 448.0, 18: 240.0, 19: 57344.0, 20: 57344.0}  # float8 types and their largest number
POWER_OF_TWO: Final = 24  # float8e8m0


def converted(call: Call, x: Array, kind: int) -> Array:
    """An array in another ONNX element type."""
    if kind == STRING:
        return _as_text(x)
    target = numpy_type(kind)
    if x.dtype == target:
        return x
    if x.dtype.kind in "OUS":
        try:
            numbers = np.array([float(text) for text in x.ravel().tolist()], np.float64).reshape(x.shape)
        except ValueError as error:
            raise call.error(f"a text is no number ({error}).") from None
        if target.kind in "iu":
            return np.array([int(text) for text in x.ravel().tolist()], target).reshape(x.shape)
        x = numbers.astype(np.float32) if kind not in (11,) else numbers
    with np.errstate(all="ignore"):
        if kind in SATURATING:
            return _eight_bits(call, x, kind, target)
        if kind == POWER_OF_TWO:
            return _power_of_two(call, x, target)
        if kind in (21, 22, 25, 26) and x.dtype.kind not in "iub":
            return np.asarray(x, np.float32).astype(np.int32).astype(target)
        if target.kind == "V" and x.dtype.kind == "V":  # small floats have no conversion to each other
            x = x.astype(np.float32)
        return x.astype(target)


def _eight_bits(call: Call, x: Array, kind: int, target: np.dtype[Any]) -> Array:
    """Float8: what is too large becomes the largest number, or infinity or NaN without `saturate`."""
    wide = x.astype(np.float32)
    if not call.get("saturate", 1):
        return wide.astype(target)
    most = SATURATING[kind]
    clipped: Array = np.where(np.isnan(wide), wide, np.clip(wide, -most, most)).astype(target)
    return clipped


def _power_of_two(call: Call, x: Array, target: np.dtype[Any]) -> Array:
    """Float8 of an exponent alone: rounded up, down or to the nearest."""
    to = onnx_package().numpy_helper.to_float8e8m0
    made: Array = np.asarray(
        to(x.astype(np.float32), saturate=bool(call.get("saturate", 1)), round_mode=call.get("round_mode", "up"))
    )
    return made if made.dtype == target else made.view(target)


def _as_text(x: Array) -> Array:
    if x.dtype.kind in "OUS":
        return x.astype(object)
    if x.dtype.kind == "f":
        texts = [np.format_float_positional(n, trim="0") if np.isfinite(n) else str(n) for n in x.ravel()]
    else:
        texts = [str(number) for number in x.ravel().tolist()]
    result = np.empty(x.size, object)
    result[:] = texts
    return result.reshape(x.shape)


def _cast(call: Call, x: Array, kind: int) -> Array:
    """`converted`, natively where there are kernels."""
    found = cast_natively(call, x, numpy_type(kind)) if kind != STRING and x.ndim else None
    return converted(call, x, kind) if found is None else found


@operator("Cast", as_stored=True)
def cast(call: Call, x: Array) -> Array:
    """To the type `to`."""
    kind = call.get("to")
    if isinstance(kind, str):  # operator sets 1 to 5 spell it out
        kind = onnx_package().TensorProto.DataType.Value(kind)
    if kind is None:
        raise call.error("the attribute 'to' is missing.")
    return _cast(call, x, int(kind))


@operator("CastLike", as_stored=True)
def cast_like(call: Call, x: Array, like: Array) -> Array:
    """To the type of another array."""
    if like.dtype.kind in "OUS":
        return _as_text(x)
    return _cast(call, x, element_type(like.dtype))


@operator("BitCast", as_stored=True)
def bit_cast(call: Call, x: Array) -> Array:
    """The same bytes as another type of the same width."""
    target = numpy_type(int(call.get("to", 1)))
    if target.itemsize != x.itemsize:
        raise call.error(f"{x.dtype} and {target} are not equally wide.")
    return np.ascontiguousarray(x).view(target).reshape(x.shape)


@operator("Constant", as_stored=True)
def constant(call: Call) -> Array:
    """The value that an attribute holds."""
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints", "value_string", "value_strings"):
        value = call.get(name)
        if value is not None:
            kinds = {"value_float": np.float32, "value_int": np.int64, "value_string": object}
            return value if name == "value" else np.array(value, kinds[name.rstrip("s")])
    raise call.error("it has no value that fastconv reads (sparse ones must be saved dense).")


@operator("ConstantOfShape", as_stored=True, shaping=(0,))
def constant_of_shape(call: Call, shape: Array) -> Array:
    """One value everywhere."""
    value = call.get("value")
    value = np.zeros(1, np.float32) if value is None else value
    sizes = call.check(shape.ravel().tolist(), value.dtype)
    return np.full(sizes, value.ravel()[0], value.dtype)


@operator("Range", shaping="all")
def range_(call: Call, start: Array, limit: Array, step: Array) -> Any:
    """From start in steps up to, without, the limit."""
    first, end, by = start.ravel()[0], limit.ravel()[0], step.ravel()[0]
    if not by:
        raise call.error("the step is zero.")
    steps = (float(end) - float(first)) / float(by)
    if not np.isfinite(steps):
        raise call.error(f"from {first} to {end} by {by} has no end.")
    count = max(0, int(np.ceil(steps)))
    call.check((count,), start.dtype)
    return (first + np.arange(count).astype(start.dtype) * by).astype(start.dtype, copy=False)


@operator("EyeLike", as_stored=True)
def eye_like(call: Call, x: Array) -> Any:
    """Ones on a diagonal of a matrix of the input's shape."""
    if x.ndim != 2:
        raise call.error(f"an input of shape {x.shape} is no matrix.")
    kind = call.get("dtype")
    dtype = x.dtype if kind is None else numpy_type(int(kind))
    return np.eye(x.shape[0], x.shape[1], k=int(call.get("k", 0)), dtype=dtype)


@operator("Shape", as_stored=True)
def shape_(call: Call, x: Array) -> Array:
    """The lengths of the axes from `start` to `end`."""
    return np.array(x.shape[call.get("start", 0) : call.get("end")], np.int64)


@operator("Size", as_stored=True)
def size_(call: Call, x: Array) -> Array:
    """The number of elements."""
    return np.array(x.size, np.int64)
