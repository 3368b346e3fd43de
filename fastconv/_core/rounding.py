"""Weights and operands of 16 bits: `weights_dtype` and `precision`, checked, and what rounding does to weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from ..errors import ConvError, ConvTypeError
from .arrays import Array, DType
from .record import NamedTuple
from .types import COMPUTE, COMPUTE_DTYPES, FLOATS, Types
from .words import word

FLOAT32: Final = "float32"
WEIGHTS: Final = (FLOAT32, "float16", "bfloat16")
PRECISIONS: Final = (FLOAT32, "bfloat16")
LARGEST_HALF: Final = 65520.0  # from here on a float rounds to float16's infinity


class Halves(NamedTuple):
    """What a plan holds its weights in, and whether it rounds its operands to bfloat16."""

    packed: str = ""
    rounded: bool = False
    beside: bool = False  # whether it may hold a transform of the weights in float32 too

    @property
    def options(self) -> dict[str, str]:
        """As the caller would say it."""
        if self.rounded:
            return {"precision": "bfloat16"}
        return {"weights_dtype": self.packed} if self.packed else {}


NO_HALVES: Final = Halves()
Grant = Callable[[int], bool]  # whether a plan may hold so many bytes beside its weights


def types_in(types: Types, precision: str | None) -> Types:
    """Those of a call whose operands are rounded: weights that `in_precision` has rounded are packed in 16 bits."""
    return types if precision is None else types._replace(packed=precision, rounded=True)


def in_precision(weight: Array, precision: str | None) -> Array:
    """The weights of such a call."""
    return weight if precision is None else to_bfloat16(weight)


def types_of(dtype: DType, halves: Halves) -> Types:
    """The types of a plan for arrays of `dtype`, with weights rounded in float32."""
    types = Types(dtype, dtype, dtype)
    if not halves.packed:
        return types
    single = np.dtype(np.float32)
    return types._replace(weight=single, packed=halves.packed, rounded=halves.rounded, beside=halves.beside)


def checked_halves(weights_dtype: object, precision: object) -> Halves:
    """The two options, None or a word each."""
    packed = FLOAT32 if weights_dtype is None else word("weights_dtype", _name(weights_dtype), WEIGHTS)
    rounded = precision is not None and word("precision", _name(precision), PRECISIONS) != FLOAT32
    if rounded and weights_dtype is not None and packed != "bfloat16":
        raise ConvError(
            f"precision='bfloat16' rounds the weights to bfloat16 and holds them so, but got weights_dtype={packed!r}; "
            "leave one of the two out."
        )
    return Halves("bfloat16" if rounded else "" if packed == FLOAT32 else packed, rounded)


def _name(given: object) -> object:
    """The name of an element type that is given as one."""
    if isinstance(given, np.dtype):
        return given.name
    return given.__name__ if isinstance(given, type) else given


def require_single(halves: Halves, dtype: DType) -> None:
    """Refuse 16 bits for a plan whose sums are not made in float32."""
    if halves == NO_HALVES or (dtype in FLOATS and COMPUTE_DTYPES[COMPUTE[dtype]] == np.float32):
        return
    ((name, value),) = halves.options.items()
    why = "double precision would be lost" if dtype in FLOATS else "integers are exact"
    raise ConvTypeError(
        f"{name}={value!r} is for arrays that are computed in float32, but the weight is {dtype}, and {why}; leave it "
        "out, or convert the weight with .astype('float32')."
    )


def rounded(weight: Array, packed: str) -> Array:
    """The weights in float32, each the nearest number of a type of 16 bits, the even one of two that are as near.

    Raises `ConvError` for a finite one that the type does not hold.
    """
    values: Any = np.asarray(weight, np.float32)
    if packed == "bfloat16":
        nearest = to_bfloat16(values)
    else:
        with np.errstate(over="ignore"):
            nearest = values.astype(np.float16).astype(np.float32)
    lost = np.isinf(nearest) & np.isfinite(values)
    if lost.any():
        at = tuple(int(i) for i in np.argwhere(lost)[0])
        most = "65504" if packed == "float16" else "3.39e38"
        raise ConvError(
            f"weights_dtype={packed!r} holds numbers up to {most}, but weight{list(at)} is {values[at]:g}; use "
            f"{'weights_dtype=' + repr('bfloat16') if packed == 'float16' else 'float32'}, or scale the weights."
        )
    return nearest


def to_bfloat16(values: Array) -> Array:
    """float32 rounded to bfloat16, in float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    up = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) & np.uint32(0xFFFF0000)).view(np.float32)
    made = np.where(np.isnan(values), np.float32(np.nan), up.reshape(np.shape(values)))
    return np.asarray(made, np.float32)
