"""Element types, activations and padding modes: their numbers in native code, and what is computed in what.

Everything about an element type is a row of `STORED`; the numbers are those of the enums in src/fastconv.h.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np

from .activations import FUSED

DType = np.dtype[Any]

STORAGE: Final = {
    np.dtype(name): code
    for code, name in enumerate(
        ["float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    )
}
COMPUTE: Final = {
    np.dtype("float32"): 0,
    np.dtype("float16"): 0,
    np.dtype("float64"): 1,
    np.dtype("int32"): 2,
    np.dtype("int64"): 3,
}
COMPUTE_DTYPES: Final[list[DType]] = [np.dtype("float32"), np.dtype("float64"), np.dtype("int32"), np.dtype("int64")]
ACTIVATIONS: Final[dict[str | None, int]] = {None: 0} | FUSED
PADDING_MODES: Final = {"zeros": 0, "reflect": 1, "replicate": 2, "circular": 3, "symmetric": 4}


class Codes(NamedTuple):
    """The element types of a convolution as native code numbers them: fc_compute, then fc_dtype."""

    compute: int
    input: int
    weight: int
    result: int


class Types(NamedTuple):
    """The element types of a convolution's arrays; sums are made in `compute`."""

    input: DType
    weight: DType
    result: DType

    @property
    def compute(self) -> DType:
        """The type of the sums."""
        return COMPUTE_DTYPES[COMPUTE[self.result]]


@lru_cache(maxsize=256)
def codes(types: Types) -> Codes:
    """The numbers of three types."""
    return Codes(COMPUTE[types.result], STORAGE[types.input], STORAGE[types.weight], STORAGE[types.result])


def result_of(dtype: DType) -> DType:
    """The type of a result of arrays of `dtype`: a float as it is, int32 of up to 16 bits, else int64."""
    return dtype if dtype.kind == "f" else np.dtype("int32" if dtype.itemsize <= 2 else "int64")
