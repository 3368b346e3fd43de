"""ONNX's element types: their numbers, their names, and NumPy's."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from .errors import OnnxError, onnx_package

# TensorProto.DataType: (name as ONNX Runtime spells it, bits an element, field of values that are not raw).
ELEMENT_TYPES: Final[dict[int, tuple[str, int, str]]] = {
    1: ("float", 32, "float_data"),
    2: ("uint8", 8, "int32_data"),
    3: ("int8", 8, "int32_data"),
    4: ("uint16", 16, "int32_data"),
    5: ("int16", 16, "int32_data"),
    6: ("int32", 32, "int32_data"),
    7: ("int64", 64, "int64_data"),
    8: ("string", 0, "string_data"),
    9: ("bool", 8, "int32_data"),
    10: ("float16", 16, "int32_data"),
    11: ("double", 64, "double_data"),
    12: ("uint32", 32, "uint64_data"),
    13: ("uint64", 64, "uint64_data"),
    14: ("complex64", 64, "float_data"),
    15: ("complex128", 128, "double_data"),
    16: ("bfloat16", 16, "int32_data"),
    17: ("float8e4m3fn", 8, "int32_data"),
    18: ("float8e4m3fnuz", 8, "int32_data"),
    19: ("float8e5m2", 8, "int32_data"),
    20: ("float8e5m2fnuz", 8, "int32_data"),
    21: ("uint4", 4, "int32_data"),
    22: ("int4", 4, "int32_data"),
    23: ("float4e2m1", 4, "int32_data"),
    24: ("float8e8m0", 8, "int32_data"),
    25: ("uint2", 2, "int32_data"),
    26: ("int2", 2, "int32_data"),
}
STRING: Final = 8
# NumPy's own; the others are those of ml_dtypes, which the package onnx names.
PLAIN: Final[dict[int, np.dtype[Any]]] = {
    1: np.dtype(np.float32), 2: np.dtype(np.uint8), 3: np.dtype(np.int8), 4: np.dtype(np.uint16),
    5: np.dtype(np.int16), 6: np.dtype(np.int32), 7: np.dtype(np.int64), STRING: np.dtype(object),
    9: np.dtype(np.bool_), 10: np.dtype(np.float16), 11: np.dtype(np.float64), 12: np.dtype(np.uint32),
    13: np.dtype(np.uint64), 14: np.dtype(np.complex64), 15: np.dtype(np.complex128),
}  # fmt: skip
NUMBERS: Final = {dtype: number for number, dtype in PLAIN.items()}


def type_name(element_type: int) -> str:
    """The type as ONNX Runtime writes it: 'tensor(float)'."""
    found = ELEMENT_TYPES.get(element_type)
    return f"tensor({found[0]})" if found else f"tensor({element_type}?)"


def numpy_type(element_type: int) -> np.dtype[Any]:
    """The NumPy type of an ONNX element type; small floats and integers are those of ml_dtypes."""
    if element_type not in ELEMENT_TYPES:
        raise OnnxError(f"element type {element_type} is none of ONNX's; the file is damaged or newer than fastconv.")
    found = PLAIN.get(element_type)
    return np.dtype(onnx_package().helper.tensor_dtype_to_np_dtype(element_type)) if found is None else found


def element_type(dtype: np.dtype[Any]) -> int:
    """The number of a NumPy type."""
    found = NUMBERS.get(dtype)
    return int(onnx_package().helper.np_dtype_to_tensor_dtype(dtype)) if found is None else found
