"""The caller's arrays at the edge: element types, axis orders, memory layouts and `out=`.

Inside, every activation is (batch, channels, height, width) and every weight (out channels, in channels of a group,
kernel height, kernel width); a `Layout` turns the caller's axes into those and back, always as views.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Final, NamedTuple, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from ._core.types import FLOATS, INTEGERS, SUPPORTED, learn
from .errors import ConvError, ConvTypeError
from .geometry import Shape

Array = NDArray[Any]
DType = np.dtype[Any]

INT32: Final = np.dtype(np.int32)
INT64: Final = np.dtype(np.int64)

CACHE_LINE: Final = 64  # bytes
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


def _check_interface(name: str, data: Any, kind: str, array: Array) -> None:
    """Refuse an array whose elements lie outside the buffer that its object names: NumPy believes what it is told."""
    try:
        buffer = np.frombuffer(data, np.uint8)
    except (TypeError, ValueError):  # an address; of these none but zero is known to be wrong
        if array.size and not array.__array_interface__["data"][0]:
            raise ConvTypeError(
                f"{name} must be an array of numbers, but the __array_interface__ of this {kind} gives no "
                f"address for its shape {array.shape}; pass a NumPy array."
            ) from None
        return
    reach = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    low = array.__array_interface__["data"][0] - buffer.__array_interface__["data"][0] + sum(r for r in reach if r < 0)
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


# ---- layouts -----------------------------------------------------------------------------------------------------


class Layout(NamedTuple):
    """An axis order of the caller: how its arrays become logical ones, and back."""

    name: str
    channels_last: bool
    dimensions: int  # 2, or 1 for arrays without a height
    axes: str
    weight_axes: str

    def activation(self, name: str, array: Array) -> tuple[Array, bool]:
        """(batch, channels, height, width) view of `array`, and whether it came with a batch axis."""
        ndim = array.ndim
        if ndim == self.dimensions + 2:
            return self.to_logical(array), True
        if ndim == self.dimensions + 1:
            return self.to_logical(array[None]), False
        raise self.wrong_axes(name, array.shape)

    def wrong_axes(self, name: str, shape: Shape) -> ConvError:
        """The refusal of an array or a shape without the axes of an activation."""
        return ConvError(
            f"{name} must have the axes {self.axes}, or {self.axes.replace('N, ', '')} without a batch, for "
            f"data_format='{self.name}', but got {name} of shape {shape}; add or remove axes with reshape."
        )

    def to_logical(self, array: Array) -> Array:
        """A batch of the caller's as (N, C, H, W)."""
        if self.dimensions == 2:
            return array.transpose(0, 3, 1, 2) if self.channels_last else array
        return (array.transpose(0, 2, 1) if self.channels_last else array)[:, :, None]

    def from_logical(self, array: Array, batched: bool) -> Array:
        """(N, C, H, W) as the caller's axes, without the batch axis if it came without."""
        if self.dimensions == 1:
            array = array[:, :, 0]
            if self.channels_last:
                array = array.transpose(0, 2, 1)
        elif self.channels_last:
            array = array.transpose(0, 2, 3, 1)
        return array if batched else array[0]

    def weight(self, name: str, array: Array) -> Array:
        """(O, I/groups, kH, kW) view of a weight; of a transposed one (I, O/groups, kH, kW)."""
        if array.ndim != self.dimensions + 2:
            raise self.wrong_weight_axes(name, array.shape)
        if self.dimensions == 2:
            return array.transpose(3, 2, 0, 1) if self.channels_last else array
        return (array.transpose(2, 1, 0) if self.channels_last else array)[:, :, None]

    def from_logical_shape(self, shape: Shape) -> Shape:
        """The shape of a batch, (N, C, H, W), in the caller's axes."""
        batch, channels, height, width = shape
        sizes = (height, width)[2 - self.dimensions :]
        return (batch, *sizes, channels) if self.channels_last else (batch, channels, *sizes)

    def weight_from_logical(self, array: Array) -> Array:
        """A logical weight of two dimensions in the caller's axes."""
        return array.transpose(2, 3, 1, 0) if self.channels_last else array

    def wrong_weight_axes(self, name: str, shape: Shape) -> ConvError:
        """The refusal of an array or a shape without the axes of a weight."""
        return ConvError(
            f"{name} must have the axes {self.weight_axes} for data_format='{self.name}', but got {name} of shape "
            f"{shape}; add or remove axes with reshape."
        )

    def tiled_weight(self, name: str, array: Array) -> Array:
        """(tH, tW, O, I, kH, kW) view of the kernels of a tiled convolution."""
        self.logical_tiled_shape(name, array.shape)
        return array.transpose(0, 1, 5, 4, 2, 3) if self.channels_last else array

    def logical_tiled_shape(self, name: str, shape: Shape) -> Shape:
        """The shape of the kernels of a tiled convolution as (tH, tW, O, I, kH, kW)."""
        if len(shape) != 6:
            axes = "(tH, tW, kH, kW, I, O)" if self.channels_last else "(tH, tW, O, I, kH, kW)"
            raise ConvError(
                f"{name} must have the axes {axes} for data_format='{self.name}', but got {name} of shape {shape}; "
                "a plain kernel becomes a tile of 1 x 1 with weight[None, None]."
            )
        return (*shape[:2], shape[5], shape[4], *shape[2:4]) if self.channels_last else shape

    def logical_shape(self, name: str, shape: Shape) -> tuple[Shape, bool]:
        """The shape of an activation in the logical order, and whether it has a batch axis."""
        batched = len(shape) == self.dimensions + 2
        if not batched and len(shape) != self.dimensions + 1:
            raise self.wrong_axes(name, shape)
        batch, rest = (shape[0], shape[1:]) if batched else (1, shape)
        channels, sizes = (rest[-1], rest[:-1]) if self.channels_last else (rest[0], rest[1:])
        return (batch, channels, *(1,) * (2 - self.dimensions), *sizes), batched

    def logical_weight_shape(self, name: str, shape: Shape) -> Shape:
        """The shape of a weight in the logical order."""
        if len(shape) != self.dimensions + 2:
            raise self.wrong_weight_axes(name, shape)
        if self.channels_last:
            shape = (shape[-1], shape[-2], *shape[:-2])
        return (*shape[:2], *(1,) * (2 - self.dimensions), *shape[2:])


def _layouts(first: Layout, last: Layout) -> dict[str, Layout]:
    """Every spelling of two layouts; upper case is the one that `layout` folds to."""
    return {
        **dict.fromkeys(("NCHW", "channels_first", "CHANNELS_FIRST"), first),
        **dict.fromkeys(("NHWC", "channels_last", "CHANNELS_LAST"), last),
        first.name: first,
        last.name: last,
    }


LAYOUTS_2D: Final = _layouts(
    Layout("NCHW", False, 2, "(N, C, H, W)", "(O, I/groups, kH, kW)"),
    Layout("NHWC", True, 2, "(N, H, W, C)", "(kH, kW, I/groups, O)"),
)
LAYOUTS_1D: Final = _layouts(
    Layout("NCL", False, 1, "(N, C, L)", "(O, I/groups, k)"),
    Layout("NLC", True, 1, "(N, L, C)", "(k, I/groups, O)"),
)


def layout(data_format: object, known: dict[str, Layout] = LAYOUTS_2D) -> Layout:
    """The layout that `data_format` names, in any case."""
    if not isinstance(data_format, str):
        raise ConvTypeError(
            f"data_format must be a string such as 'NCHW' or 'NHWC', but got {data_format!r} of type "
            f"{type(data_format).__name__}."
        )
    found = known.get(data_format) or known.get(data_format.upper())
    if found is None:
        names = ", ".join(repr(name) for name in known if name == name.upper() or name.islower())
        raise ConvError(f"data_format must be one of {names} in any case, but got data_format={data_format!r}.")
    return found


def lies_channels_last(array: Array) -> bool:
    """Whether a logical view lies in memory with its channels innermost and the batch outermost.

    PyTorch's rule, with axes of length one left aside: an array that fits both orders counts as channels-first.
    Gaps between the rows or images, as in a crop, do not matter.
    """
    batch, channels, height, width = array.shape
    if channels <= 1 or height * width <= 1 or batch == 0 or array.flags.c_contiguous:
        return False
    s_batch, s_channel, s_row, s_column = array.strides
    least = 1
    for size, stride in ((channels, s_channel), (width, s_column), (height, s_row), (batch, s_batch)):
        if size > 1:
            if stride < least:
                return False
            least = stride * size
    return True


def empty(shape: Shape, dtype: DType) -> Array:
    """A new array; a large one begins on a cache line, so that no vector of it straddles two."""
    count = prod(shape) * dtype.itemsize
    if count < ALIGNED_FROM_BYTES:
        return np.empty(shape, dtype)
    raw = np.empty(count + CACHE_LINE, np.uint8)
    shift: int = -raw.__array_interface__["data"][0] % CACHE_LINE
    return np.ndarray(shape, dtype, raw, shift)


def empty_activation(shape: Shape, dtype: DType, channels_last: bool) -> Array:
    """A new (N, C, H, W) array, in memory in that order or channels last."""
    if channels_last:
        batch, channels, height, width = shape
        return empty((batch, height, width, channels), dtype).transpose(0, 3, 1, 2)
    return empty(shape, dtype)


def empty_weight(shape: Shape, dtype: DType, channels_last: bool) -> Array:
    """A new (O, I/groups, kH, kW) array, in memory in that order or as (kH, kW, I/groups, O)."""
    if channels_last:
        outputs, channels, height, width = shape
        return np.empty((height, width, channels, outputs), dtype).transpose(3, 2, 0, 1)
    return np.empty(shape, dtype)


def checked_residual(name: str, residual: object, frame: Layout, wanted: Shape, batched: bool, dtype: DType) -> Array:
    """`residual` as a logical view, if it can be added to a result of this logical shape and type."""
    own = as_array("residual", residual)
    logical, own_batched = frame.activation("residual", own)
    if logical.shape != wanted or own_batched != batched:
        own_wanted = frame.from_logical(np.broadcast_to(np.int8(0), wanted), batched).shape
        raise ConvError(
            f"{name}: residual must have the shape {own_wanted} of the result, but got residual of shape {own.shape}; "
            "use np.broadcast_to if it is to be repeated."
        )
    require_addend("residual", own, dtype)
    return logical


# ---- out= --------------------------------------------------------------------------------------------------------


def _overlaps_itself(array: Array) -> bool:
    """Whether two elements may share memory: an axis steps less far than the axes inside it reach."""
    if array.flags.c_contiguous or array.flags.f_contiguous or array.size <= 1:
        return False
    reach = array.itemsize
    for stride, size in sorted((abs(stride), size) for stride, size in zip(array.strides, array.shape, strict=True)):
        if size > 1:
            if stride < reach:
                return True
            reach += stride * (size - 1)
    return False


def _nothing() -> None:
    pass


def checked_out(name: str, out: object, shape: Shape, dtype: DType) -> Array:
    """`out`'s memory if a result of this shape (in the caller's axes) and type can be written into it."""
    if not is_ndarray(out):
        raise ConvTypeError(
            f"{name}: out must be a NumPy array, but got a {type(out).__name__}; pass np.empty({shape}, '{dtype}') "
            "or leave it out."
        )
    out = plain(out)
    if out.dtype != dtype:
        raise ConvTypeError(
            f"{name}: out must have dtype {dtype}, but got out of dtype {out.dtype} and shape {out.shape}; "
            f"pass np.empty({shape}, '{dtype}')."
        )
    if out.shape != shape:
        raise ConvError(
            f"{name}: out must have the shape {shape} of the result, but got out of shape {out.shape}; "
            f"pass np.empty({shape}, '{dtype}')."
        )
    if not out.flags.writeable:
        raise ConvError(f"{name}: out of shape {out.shape} is read-only; pass a writeable array.")
    if _overlaps_itself(out):
        raise ConvError(
            f"{name}: elements of out (shape {out.shape}, strides {out.strides}) share memory; "
            "pass an array of its own, such as out.copy()."
        )
    return out


def destination(
    name: str,
    out: object,
    layout: Layout,
    shape: Shape,
    dtype: DType,
    batched: bool,
    channels_last: bool,
    inputs: tuple[Array | None, ...],
) -> tuple[Array, Array, Callable[[], None]]:
    """Where a result of logical `shape` is computed, what the caller gets, and the step that ends the call.

    Without `out` a new array. With it, `out` itself unless it shares memory with an input: then a new one, which the
    last step copies.
    """
    if out is None:
        fresh = empty_activation(shape, dtype, channels_last)
        return fresh, layout.from_logical(fresh, batched), _nothing
    own_shape = layout.from_logical(np.broadcast_to(np.int8(0), shape), batched).shape
    memory, result = checked_out(name, out, own_shape, dtype), cast(Array, out)
    target = layout.to_logical(memory if batched else memory[None])
    if not any(array is not None and np.may_share_memory(memory, array) for array in inputs):
        return target, result, _nothing
    fresh = empty_activation(shape, dtype, channels_last)

    def copy() -> None:
        target[...] = fresh

    return fresh, result, copy
