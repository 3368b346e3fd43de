"""Options that depend on arrays: algorithm, activation, bias, the gradient of a result, averages, tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ..errors import ConvError, ConvTypeError
from .activations import FUSED, LINEAR, activation_name
from .arrays import Array, DType, as_array, require_addend
from .later import Later
from .layouts import Layout
from .types import FLOATS
from .words import Shape, flag, integer, word

if TYPE_CHECKING:
    from . import select
else:
    select = Later("select")

ACTIVATIONS: Final = (LINEAR, *FUSED)
EXACT_ACTIVATIONS: Final = ("relu", "relu6")
LARGEST_DIVISOR: Final = 1 << 53  # a whole number that a double holds


def checked_algorithm(algorithm: object) -> str:
    """`algorithm` as one of `WORDS`, or one with a method's variant behind a colon."""
    if isinstance(algorithm, str) and (algorithm == "auto" or select.known(algorithm.lower())):
        return algorithm.lower()
    return word("algorithm", algorithm, select.WORDS)


def checked_workspace(value: object) -> int | None:
    """`max_workspace` in bytes; None for the usual."""
    if value is None:
        return None
    try:
        number = integer("max_workspace", value)
    except ConvTypeError as error:
        raise ConvTypeError(f"{error} It counts bytes; None means the usual limit.") from None
    if number < 0:
        raise ConvError(f"max_workspace must be at least 0 bytes, but got max_workspace={value!r}.")
    return number


def checked_activation(activation: object, dtype: DType) -> str | None:
    """The name of an activation that a result of this type may have; None for none."""
    if activation is None:
        return None
    chosen = activation_name(activation, ACTIVATIONS)
    if chosen == LINEAR:
        return None
    if dtype not in FLOATS and chosen not in EXACT_ACTIVATIONS:
        raise ConvTypeError(
            f"activation={chosen!r} of an integer result ({dtype}) is no integer; use None, 'relu' or 'relu6', or "
            "convert the arrays with .astype('float32')."
        )
    return chosen


def checked_bias(name: str, bias: object, channels: int, dtype: DType, weight_shape: Shape) -> Array | None:
    """`bias` as an array with one value for each output channel."""
    if bias is None:
        return None
    array = as_array("bias", bias)
    if array.shape != (channels,):
        raise ConvError(
            f"{name}: bias must have shape ({channels},), one value for each output channel of weight {weight_shape}, "
            f"but got bias of shape {array.shape}; reshape it."
        )
    require_addend("bias", array, dtype)
    return array


def checked_gradient(name: str, frame: Layout, grad_output: Array, result_shape: Shape, batched: bool) -> Array:
    """The gradient of a result of this logical shape as a logical view."""
    logical, own_batched = frame.activation("grad_output", grad_output)
    if logical.shape != result_shape or own_batched != batched:
        wanted = frame.from_logical(np.broadcast_to(np.int8(0), result_shape), batched).shape
        raise ConvError(
            f"{name}: grad_output must have the shape {wanted} of the result of the forward call, but got grad_output "
            f"of shape {grad_output.shape}; check stride, padding and dilation against that call."
        )
    return logical


def checked_tiles(name: str, kernels_shape: Shape) -> tuple[int, int]:
    """(tH, tW) of a tiled weight of this logical shape."""
    if 0 in kernels_shape[:2]:
        raise ConvError(
            f"{name}: weight must hold at least one kernel, but got {kernels_shape[0]} x {kernels_shape[1]} tiles "
            "(its first two axes)."
        )
    return kernels_shape[0], kernels_shape[1]


def checked_average(
    name: str, dtype: DType, argument: str, count_include_pad: object, divisor_override: object
) -> tuple[bool, int | None]:
    """The options of an average; refuses integers, whose mean is none."""
    if dtype not in FLOATS:
        raise ConvTypeError(
            f"{name}: {argument} must be floating point, but got {argument} of dtype {dtype}: a mean of integers is no "
            "integer. Convert it with .astype('float32')."
        )
    include = flag("count_include_pad", count_include_pad)
    if divisor_override is None:
        return include, None
    divisor = integer("divisor_override", divisor_override)
    if not 0 < abs(divisor) < LARGEST_DIVISOR:
        raise ConvError(
            f"{name}: divisor_override must not be 0 and below 2**53, but got divisor_override={divisor}; "
            "use None for the size of the window."
        )
    return include, divisor


def checked_dtype(dtype: object) -> DType:
    """An element type given as such, in native byte order."""
    try:
        element = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError as error:
        raise ConvTypeError(f"dtype must name an element type such as 'float32', but got {dtype!r}.") from error
    as_array("dtype", np.empty(0, element))
    native: DType = element.newbyteorder("=")
    return native
