"""The caller's arrays at the edge: what is one, of which element types, and of which type the result is."""

from __future__ import annotations

from math import prod
from typing import Any, Final, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ..errors import ConvTypeError
from .types import COMPUTE_DTYPES, FLOATS, INTEGERS, SUPPORTED, learn
from .words import Shape

Array = NDArray[Any]
DType = np.dtype[Any]

INT32: Final = np.dtype(np.int32)
INT64: Final = np.dtype(np.int64)

CACHE_LINE: Final = 64  # bytes
MOST_LANES: Final = 16  # of any instruction set's vectors
ALIGNED_FROM_BYTES: Final = 1 << 15  # below, aligning costs more than it saves

# ---- element types -----------------------------------------------------------------------------------------------


def is_ndarray(value: object) -> TypeGuard[Array]:
    """Whether this is NumPy's array or of a subclass, whatever it says its class is."""
    return issubclass(type(value), np.ndarray)


def plain(array: Array) -> Array:
    """The memory of an array as an ndarray of our own.

    What a subclass says of its shape, its element type or its place may be anything; and what is the caller's may get
    another shape while we compute. NumPy's own record of the memory is what counts.
    """
    return np.ndarray.view(array, np.ndarray)


def as_array(name: str, value: object) -> Array:
    """`value` as an ndarray of native byte order and a supported element type; copied only if that needs it."""
    if is_ndarray(value):
        array = plain(value)
        if array.dtype in SUPPORTED:
            return array
    elif value is None or isinstance(value, (str, bytes)):
        raise ConvTypeError(f"{name} must be an array of numbers, but got {value!r}; pass a NumPy array.")
    else:
        array = _converted(name, value)
    if array.dtype not in SUPPORTED:
        native = array.dtype.newbyteorder("=")
        if not learn(native):
            raise unusable_dtype(name, array)
        array = array.astype(native, copy=False)
    return array


def _converted(name: str, value: object) -> Array:
    """What NumPy makes of an object that is no array."""
    try:
        array = plain(np.asarray(value))
    except MemoryError:
        raise
    except Exception as error:
        raise ConvTypeError(
            f"{name} must be an array of numbers, but NumPy cannot convert this {type(value).__name__} ({error}); "
            "pass a NumPy array."
        ) from error
    if not issubclass(type(value), np.generic):
        interface = getattr(value, "__array_interface__", None)
        if isinstance(interface, dict):
            _check_interface(name, interface.get("data"), type(value).__name__, array)
    return array


def address(array: Array) -> int:
    """Where the first element lies."""
    return int(array.__array_interface__["data"][0])


def _check_interface(name: str, data: Any, kind: str, array: Array) -> None:
    """Refuse an array whose elements lie outside the buffer that its object names: NumPy believes what it is told."""
    try:
        buffer = np.frombuffer(data, np.uint8)
    except (TypeError, ValueError):  # an address; of these none but zero is known to be wrong
        if array.size and not address(array):
            raise ConvTypeError(
                f"{name} must be an array of numbers, but the __array_interface__ of this {kind} gives no "
                f"address for its shape {array.shape}; pass a NumPy array."
            ) from None
        return
    reach = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    low = address(array) - address(buffer) + sum(r for r in reach if r < 0)
    high = low + sum(map(abs, reach)) + array.itemsize
    if array.size and not 0 <= low <= high <= buffer.size:
        raise ConvTypeError(
            f"{name} must be an array of numbers, but the __array_interface__ of this {kind} puts shape "
            f" {array.shape} with strides {array.strides} into a buffer of {buffer.size} bytes; pass a NumPy array."
        )


def unusable_dtype(name: str, array: Array) -> ConvTypeError:
    """The refusal of an element type, with the way out for each kind."""
    ways = {
        "b": "convert it with .astype('uint8') or .astype('float32')",
        "c": "convolve the real and the imaginary part each on its own",
        "f": "convert it with .astype('float64')",
    }
    return ConvTypeError(
        f"{name} must hold floats of 16, 32 or 64 bits or integers of 8 to 64 bits, but got {name} of dtype "
        f"{array.dtype} and shape {array.shape}; {ways.get(array.dtype.kind, 'pass an array of numbers')}."
    )


def result_dtype(name: str, array: Array, other_name: str, other: Array) -> DType:
    """The element type of a result: a float as it is, int32 for integers of up to 16 bits, int64 for wider ones."""
    dtype, other_dtype = array.dtype, other.dtype
    if dtype in FLOATS:
        if dtype == other_dtype:
            return dtype
    elif other_dtype in INTEGERS:
        return INT32 if dtype.itemsize <= 2 and other_dtype.itemsize <= 2 else INT64
    try:
        wider = np.result_type(dtype, other_dtype)
    except TypeError:  # NumPy knows no type that holds both, as of float16 and bfloat16
        wider = np.dtype(np.float32)
    raise ConvTypeError(
        f"{name} and {other_name} must have the same floating dtype or both hold integers, but got {name} of dtype "
        f"{dtype} {array.shape} and {other_name} of dtype {other_dtype} {other.shape}; "
        f"convert one of them, for instance with .astype('{wider}')."
    )


def require_addend(name: str, array: Array, result: DType) -> None:
    """An array that is added to a result: the same float, or any integer to integers."""
    if array.dtype != result and (result in FLOATS or array.dtype not in INTEGERS):
        wanted = f"dtype {result}, as input has" if result in FLOATS else "an integer dtype, as input has"
        raise ConvTypeError(
            f"{name} must have {wanted}, but got {name} of dtype {array.dtype} and shape {array.shape}; "
            f"convert it with .astype('{result}')."
        )


# ---- new arrays --------------------------------------------------------------------------------------------------


def empty(shape: Shape, dtype: DType) -> Array:
    """A new array; a large one begins on a cache line, so that no vector of it straddles two."""
    count = prod(shape) * dtype.itemsize
    if count < ALIGNED_FROM_BYTES:
        return np.empty(shape, dtype)
    raw = np.empty(count + CACHE_LINE, np.uint8)
    shift: int = -raw.__array_interface__["data"][0] % CACHE_LINE
    return np.ndarray(shape, dtype, raw, shift)


def bias_for(bias: Array | None, compute: int) -> Array | None:
    """The bias in the computing type, aligned, in memory that vectors may be read from up to its end."""
    if bias is None:
        return None
    dtype = COMPUTE_DTYPES[compute]
    if bias.dtype == dtype and bias.flags.c_contiguous and bias.flags.aligned and bias.size % MOST_LANES == 0:
        return bias
    return in_vectors(bias, bias.size, dtype)


def in_vectors(values: Any, count: int, dtype: Any) -> Array:
    """`count` values, or one for all, in memory that vectors may be read from up to its end."""
    padded = np.zeros(-(-count // MOST_LANES) * MOST_LANES, dtype)
    padded[:count] = values
    return padded[:count]
