"""Element types, activations and padding modes: their numbers in native code, and what is computed in what.

`STORED` is the one table of element types; the numbers come from src/fastconv.h by name.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np

from .. import _native
from .record import NamedTuple

DType = np.dtype[Any]


class Stored(NamedTuple):
    """An element type of arrays."""

    name: str
    sums: str | None  # the type that results of it are computed in; None for operands alone
    result: str  # the type of a result of such operands


STORED: Final = (
    Stored("float32", "float32", "float32"),
    Stored("float64", "float64", "float64"),
    Stored("float16", "float32", "float16"),
    Stored("bfloat16", "float32", "bfloat16"),  # of ml_dtypes, which whoever has such an array has imported
    Stored("int8", None, "int32"),
    Stored("uint8", None, "int32"),
    Stored("int16", None, "int32"),
    Stored("uint16", None, "int32"),
    Stored("int32", "int32", "int64"),
    Stored("uint32", None, "int64"),
    Stored("int64", "int64", "int64"),
    Stored("uint64", None, "int64"),
)


# ---- the tables ----------------------------------------------------------------------------------------------------

FLOATS: Final[set[DType]] = set()
INTEGERS: Final[set[DType]] = set()
SUPPORTED: Final[set[DType]] = set()
STORAGE: Final[dict[DType, int]] = {}  # fc_dtype
COMPUTE: Final[dict[DType, int]] = {}  # fc_compute
COMPUTE_DTYPES: Final[list[DType]] = [np.dtype(name) for name in ("float32", "float64", "int32", "int64")]
ACTIVATIONS: Final[dict[str | None, int]] = _native.ACTIVATIONS
PADDING_MODES: Final[dict[str, int]] = _native.PADDING_MODES


def _enter(kind: Stored, dtype: DType) -> None:
    """Take an element type into the tables."""
    (FLOATS if "float" in kind.name else INTEGERS).add(dtype)
    SUPPORTED.add(dtype)
    STORAGE[dtype] = _native.DTYPES[kind.name]
    if kind.sums:
        COMPUTE[dtype] = _native.COMPUTES[kind.sums]
    _RESULTS[dtype] = dtype if kind.result == kind.name else np.dtype(kind.result)


_RESULTS: Final[dict[DType, DType]] = {}
for _kind in STORED:
    if hasattr(np, _kind.name):
        _enter(_kind, np.dtype(_kind.name))


def learn(dtype: DType) -> bool:
    """Whether arrays of this type are taken; one of another package than NumPy is known from the first array on."""
    if dtype in SUPPORTED:
        return True
    if not (dtype.type.__name__ == dtype.name and dtype.isnative and dtype.fields is None):
        return False
    for kind in STORED:
        if kind.name == dtype.name:
            _enter(kind, dtype)
            return True
    return False


class Codes(NamedTuple):
    """The element types of a convolution as native code numbers them: fc_compute, then fc_dtype."""

    compute: int
    input: int
    weight: int
    result: int
    held: int = _native.COMPUTES["float32"]  # fc_compute of the weights that a plan holds for a transform


class Types(NamedTuple):
    """The element types of a convolution's arrays; sums are made in `compute`."""

    input: DType
    weight: DType
    result: DType
    packed: str = ""  # the type of 16 bits that a plan holds its weights in; '' where it is that of the sums
    rounded: bool = False  # whether operands are rounded to bfloat16
    beside: bool = False  # whether a plan may hold a transform of them in the type of the sums too
    sums: str = ""  # the type that holds every sum, where that is less than the result's

    @property
    def compute(self) -> DType:
        """The type of the sums."""
        return np.dtype(self.sums) if self.sums else COMPUTE_DTYPES[COMPUTE[self.result]]

    @property
    def read_in_place(self) -> bool:
        """Whether an input is of the type that kernels multiply."""
        return self.input == self.compute and not self.rounded

    @property
    def plain(self) -> Types:
        """The same with weights held in the type of the sums."""
        return self._replace(packed="", beside=False)


@lru_cache(maxsize=256)
def codes(types: Types) -> Codes:
    """The numbers of three types, of kernels that multiply in the type of the sums."""
    compute = _native.COMPUTES["rounded float32"] if types.rounded else COMPUTE[types.compute]
    return Codes(
        compute, STORAGE[types.input], STORAGE[types.weight], STORAGE[types.result], _halves_compute(types) or compute
    )


_SHORT: Final = frozenset(map(np.dtype, ("int8", "uint8", "int16")))  # what int16 operands hold


def _halves_compute(types: Types) -> int | None:
    """fc_compute of products of weights that are held in 16 bits; None of others."""
    if not types.packed:
        return None
    return _native.COMPUTES[types.packed if types.rounded else f"float32 by {types.packed}"]


def product_compute(types: Types) -> int:
    """fc_compute of the products of the direct driver: of integers of 8 and 16 bits pairs of int16, which one
    instruction multiplies and adds; their sums are those of int32."""
    if types.packed or types.rounded:
        return _halves_compute(types) or _native.COMPUTES["rounded float32"]
    pairs = types.input in _SHORT and types.weight in _SHORT and types.compute == np.int32
    return _native.COMPUTES["int16"] if pairs else COMPUTE[types.compute]


def result_of(dtype: DType) -> DType:
    """The type of a result of arrays of `dtype`: a float as it is, int32 of up to 16 bits, else int64."""
    return _RESULTS[dtype]
