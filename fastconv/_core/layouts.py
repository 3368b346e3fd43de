"""Axis orders and memory layouts, for any number of axes: the caller's arrays as logical ones, results, and `out=`.

Inside, every activation is (batch, channels, *spatial) and every weight (out channels, in channels of a group,
*kernel); a `Layout` turns the caller's axes into those and back, always as views.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Final, cast

import numpy as np

from ..errors import ConvError, ConvTypeError
from .arrays import (
    INT32,
    INT64,
    Array,
    DType,
    as_array,
    empty,
    is_ndarray,
    plain,
    require_addend,
    result_dtype,
    unusable_dtype,
)
from .record import NamedTuple
from .types import FLOATS, INTEGERS, SUPPORTED
from .words import Shape

__all__ = [
    "FLOATS", "INT32", "INT64", "INTEGERS", "LAYOUTS", "SUPPORTED", "Array", "DType", "Layout", "as_array",
    "checked_out", "checked_residual", "destination", "empty", "empty_activation", "empty_weight", "is_ndarray",
    "layout", "lies_channels_last", "plain", "require_addend", "result_dtype", "unusable_dtype",
]  # fmt: skip

# Transpositions by the number of axes of the array: channels-last arrays into the logical order, and back.
INWARD: Final = {n + 2: (0, n + 1, *range(1, n + 1)) for n in (1, 2, 3)}
OUTWARD: Final = {n + 2: (0, *range(2, n + 2), 1) for n in (1, 2, 3)}
WEIGHT_INWARD: Final = {n + 2: (n + 1, n, *range(n)) for n in (1, 2, 3)}
WEIGHT_OUTWARD: Final = {n + 2: (*range(2, n + 2), 1, 0) for n in (1, 2, 3)}


# ---- axis orders -------------------------------------------------------------------------------------------------


class Layout(NamedTuple):
    """An axis order of the caller: how its arrays become logical ones, and back."""

    name: str
    channels_last: bool
    dimensions: int  # spatial axes
    axes: str
    weight_axes: str

    def activation(self, name: str, array: Array) -> tuple[Array, bool]:
        """(batch, channels, *spatial) view of `array`, and whether it came with a batch axis."""
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
        """A batch of the caller's as (N, C, *spatial)."""
        return array.transpose(INWARD[array.ndim]) if self.channels_last else array

    def from_logical(self, array: Array, batched: bool) -> Array:
        """(N, C, *spatial) as the caller's axes, without the batch axis if it came without."""
        if self.channels_last:
            array = array.transpose(OUTWARD[array.ndim])
        return array if batched else array[0]

    def weight(self, name: str, array: Array) -> Array:
        """(O, I/groups, *kernel) view of a weight; of a transposed one (I, O/groups, *kernel)."""
        if array.ndim != self.dimensions + 2:
            raise self.wrong_weight_axes(name, array.shape)
        return array.transpose(WEIGHT_INWARD[array.ndim]) if self.channels_last else array

    def weight_from_logical(self, array: Array) -> Array:
        """A logical weight in the caller's axes."""
        return array.transpose(WEIGHT_OUTWARD[array.ndim]) if self.channels_last else array

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
        return ((batch, rest[-1], *rest[:-1]) if self.channels_last else (batch, *rest)), batched

    def from_logical_shape(self, shape: Shape) -> Shape:
        """The shape of a batch, (N, C, *spatial), in the caller's axes."""
        return (shape[0], *shape[2:], shape[1]) if self.channels_last else shape

    def logical_weight_shape(self, name: str, shape: Shape) -> Shape:
        """The shape of a weight in the logical order."""
        if len(shape) != self.dimensions + 2:
            raise self.wrong_weight_axes(name, shape)
        return (shape[-1], shape[-2], *shape[:-2]) if self.channels_last else shape

    def weight_from_logical_shape(self, shape: Shape) -> Shape:
        """The shape of a logical weight, (O, I/groups, *kernel), in the caller's axes."""
        return (*shape[2:], shape[1], shape[0]) if self.channels_last else shape


def _layouts(letters: str) -> dict[str, Layout]:
    """Every spelling of the two layouts of these spatial axes; upper case is the one that `layout` folds to."""
    n, spatial = len(letters), ", ".join(letters)
    kernel = ", ".join(f"k{letter}" for letter in letters)
    first = Layout(f"NC{letters}", False, n, f"(N, C, {spatial})", f"(O, I/groups, {kernel})")
    last = Layout(f"N{letters}C", True, n, f"(N, {spatial}, C)", f"({kernel}, I/groups, O)")
    return {
        **dict.fromkeys((first.name, "channels_first", "CHANNELS_FIRST"), first),
        **dict.fromkeys((last.name, "channels_last", "CHANNELS_LAST"), last),
    }


LAYOUTS: Final = {1: _layouts("W"), 2: _layouts("HW"), 3: _layouts("DHW")}
for other, name in (("NCL", "NCW"), ("NLC", "NWC"), ("NCHW", "NCW"), ("NHWC", "NWC")):  # a height is no matter there
    LAYOUTS[1][other] = LAYOUTS[1][name]


def layout(data_format: object, axes: int = 2) -> Layout:
    """The layout of so many spatial axes that `data_format` names, in any case."""
    known = LAYOUTS[axes]
    if not isinstance(data_format, str):
        raise ConvTypeError(
            f"data_format must be a string such as {' or '.join(_names(axes)[::2])}, but got {data_format!r} of type "
            f"{type(data_format).__name__}."
        )
    found = known.get(data_format) or known.get(data_format.upper())
    if found is None:
        names = ", ".join(repr(name) for name in known if name == name.upper() or name.islower())
        raise ConvError(f"data_format must be one of {names} in any case, but got data_format={data_format!r}.")
    return found


def _names(axes: int) -> list[str]:
    """'NCHW', 'channels_first', 'NHWC', 'channels_last', quoted."""
    return [repr(name) for name in LAYOUTS[axes] if not name.startswith("CHANNELS")][:4]


# ---- memory order ------------------------------------------------------------------------------------------------


def lies_channels_last(array: Array) -> bool:
    """Whether a logical view lies in memory with its channels innermost and the batch outermost.

    PyTorch's rule, with axes of length one left aside: an array that fits both orders counts as channels-first.
    Gaps between the rows or images, as in a crop, do not matter.
    """
    shape = array.shape
    if shape[1] <= 1 or shape[0] == 0 or prod(shape[2:]) <= 1 or array.flags.c_contiguous:
        return False
    strides, least = array.strides, 1
    for axis in (1, *range(len(shape) - 1, 1, -1), 0):
        if shape[axis] > 1:
            if strides[axis] < least:
                return False
            least = strides[axis] * shape[axis]
    return True


def empty_activation(shape: Shape, dtype: DType, channels_last: bool) -> Array:
    """A new (N, C, *spatial) array, in memory in that order or channels last."""
    if channels_last:
        return empty((shape[0], *shape[2:], shape[1]), dtype).transpose(INWARD[len(shape)])
    return empty(shape, dtype)


def empty_weight(shape: Shape, dtype: DType, channels_last: bool) -> Array:
    """A new (O, I/groups, *kernel) array, in memory in that order or as (*kernel, I/groups, O)."""
    if channels_last:
        return np.empty((*shape[2:], shape[1], shape[0]), dtype).transpose(WEIGHT_INWARD[len(shape)])
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


MOST_WORK = 1000  # steps of the search for a common element of two arrays

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


def _apart(a: Array, b: Array) -> bool:
    """Whether two arrays have no element in common, though one may lie between those of the other."""
    if not np.may_share_memory(a, b):
        return True
    search: Any = np.shares_memory
    try:
        return not search(a, b, max_work=MOST_WORK)
    except (np.exceptions.TooHardError, OverflowError):
        return False


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
    if all(array is None or _apart(memory, array) for array in inputs):
        return target, result, _nothing
    fresh = empty_activation(shape, dtype, channels_last)

    def copy() -> None:
        target[...] = fresh

    return fresh, result, copy
