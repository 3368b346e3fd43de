"""Tensors of a file as arrays: every length is checked against the data that is there before anything is allocated."""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .._core.words import Shape
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
EXTERNAL: Final = 1  # TensorProto.DataLocation
MOST_AXES: Final = 32  # of an array in every NumPy that we support
MOST_TIMES: Final = 4  # the size of a file of external data, that tensors may claim of it: some share theirs


def type_name(element_type: int) -> str:
    """The type as ONNX Runtime writes it: 'tensor(float)'."""
    found = ELEMENT_TYPES.get(element_type)
    return f"tensor({found[0]})" if found else f"tensor({element_type}?)"


def numpy_type(element_type: int) -> np.dtype[Any]:
    """The NumPy type of an ONNX element type; small floats and integers are those of ml_dtypes."""
    if element_type not in ELEMENT_TYPES:
        raise OnnxError(f"element type {element_type} is none of ONNX's; the file is damaged or newer than fastconv.")
    dtype: np.dtype[Any] = np.dtype(onnx_package().helper.tensor_dtype_to_np_dtype(element_type))
    return dtype


def read_tensor(tensor: Any, folder: Path | None, what: str) -> Array:
    """A TensorProto as an array, read-only where it is a view of the file's bytes.

    `folder` is where external data may lie; None for a model that came as bytes. Raises `OnnxError` where the dims,
    the type and the data do not fit each other.
    """
    kind, shape = int(tensor.data_type), tuple(int(size) for size in tensor.dims)
    if kind not in ELEMENT_TYPES:
        raise OnnxError(f"{what} has the element type {kind}, which is none of ONNX's; the file is damaged.")
    if any(size < 0 for size in shape) or len(shape) > MOST_AXES:
        raise OnnxError(f"{what} declares the shape {shape}, which no array can have; the file is damaged.")
    if tensor.HasField("segment"):
        raise OnnxError(f"{what} is split into segments, which no writer does; save the model again.")
    _, bits, field = ELEMENT_TYPES[kind]
    count = prod(shape)
    nbytes = -(-count * bits // 8)
    try:
        if tensor.data_location == EXTERNAL:
            return _external(tensor, folder, shape, kind, nbytes, what)
        if tensor.HasField("raw_data"):
            _same_length(what, shape, kind, len(tensor.raw_data), nbytes, "bytes")
            if bits >= 8 and kind <= 15:  # a view in place of the package's copy
                little = numpy_type(kind).newbyteorder("<")
                stored = np.frombuffer(tensor.raw_data, little).reshape(shape)
                return stored.astype(little.newbyteorder("="), copy=False)
        else:
            _same_length(what, shape, kind, len(getattr(tensor, field)), _values(kind, count, bits), "values")
        array: Array = onnx_package().numpy_helper.to_array(tensor)
    except OnnxError:
        raise
    except (ValueError, TypeError, OverflowError, UnicodeDecodeError) as error:
        raise OnnxError(f"{what} of shape {shape} cannot be read ({error}); the file is damaged.") from error
    return array


def require_honest(tensors: Iterable[Any], folder: Path | None) -> None:
    """Refuse tensors that together claim far more of the files beside the model than those have: none is read yet."""
    claimed: dict[str, int] = {}
    for tensor in tensors:
        if tensor.data_location == EXTERNAL:
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            bits = ELEMENT_TYPES.get(int(tensor.data_type), ("", 0, ""))[1]
            count = prod(max(0, int(size)) for size in tensor.dims)
            claimed[location] = claimed.get(location, 0) + -(-count * bits // 8)
    for location, nbytes in claimed.items():
        path = None if folder is None else folder / location
        if path is not None and path.is_file() and nbytes > MOST_TIMES * path.stat().st_size:
            raise OnnxError(f"initializers claim {nbytes} bytes of {location!r}, which has {path.stat().st_size}.")


def _values(kind: int, count: int, bits: int) -> int:
    """How many entries of the typed field hold `count` elements."""
    if kind in (14, 15):
        return 2 * count
    return -(-count * bits // 8) if 0 < bits < 8 else count


def _same_length(what: str, shape: Shape, kind: int, got: int, wanted: int, unit: str) -> None:
    if got != wanted:
        raise OnnxError(
            f"{what} declares the shape {shape} of {type_name(kind)}, {wanted} {unit}, but holds {got}; the file is "
            "truncated or damaged."
        )


def _external(tensor: Any, folder: Path | None, shape: Shape, kind: int, nbytes: int, what: str) -> Array:
    """Data beside the model: a regular file of its folder, as long as it says."""
    if folder is None:
        raise OnnxError(f"{what} lies in another file; load the model by its path, not as bytes.")
    if kind == STRING or ELEMENT_TYPES[kind][1] < 8 or kind > 15:
        raise OnnxError(f"{what} is external data of {type_name(kind)}, which fastconv does not read; embed it.")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    root = folder.resolve()
    path = (root / location).resolve()
    if not location or os.path.isabs(location) or not path.is_relative_to(root) or not path.is_file():
        raise OnnxError(
            f"{what} lies in {location!r}, which is no file inside the model's folder {root}; put it beside the model."
        )
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(nbytes)))
    except ValueError:
        raise OnnxError(f"{what}: offset or length of {location!r} is no number; the file is damaged.") from None
    _same_length(what, shape, kind, length, nbytes, "bytes")
    if offset < 0 or offset + nbytes > path.stat().st_size:
        raise OnnxError(
            f"{what} needs the bytes {offset} to {offset + nbytes} of {location!r}, which has {path.stat().st_size}; "
            "the file is truncated."
        )
    little = numpy_type(kind).newbyteorder("<")
    flat = np.fromfile(path, little, prod(shape), offset=offset)
    return flat.reshape(shape).astype(little.newbyteorder("="), copy=False)
