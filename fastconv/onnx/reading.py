"""What a file's messages hold, as arrays and attributes: every length is checked against the data that is there before
anything is allocated.

An attribute that the operator does not have, or one of another type than it has, is refused by name: what is passed
over would be computed as if it were not there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np

from .._core.arrays import Array, address
from .._core.words import Shape
from ..graph.errors import OnnxError, onnx_package
from ..graph.graph import Node
from ..graph.signature import FIELDS, KINDS, Signature
from ..graph.tensors import ELEMENT_TYPES, PLAIN, STRING, numpy_type, type_name
from .messages import FIXED32, FIXED64, VARINT, Attribute, Tensor, numbers

EXTERNAL: Final = 1  # TensorProto.DataLocation
MOST_AXES: Final = 32  # of an array in every NumPy that we support
MOST_TIMES: Final = 4  # the size of a file of external data, that tensors may claim of it: some share theirs
# Fields of values that are not raw: their wire type, and the types of their elements that say so.
TYPED: Final = {
    "float_data": (FIXED32, np.float32), "double_data": (FIXED64, np.float64), "int64_data": (VARINT, np.int64),
    "int32_data": (VARINT, np.int32), "uint64_data": (VARINT, np.uint64),
}  # fmt: skip
ALIGNED: Final = 16  # bytes, as memory that was asked for is


# ---- tensors --------------------------------------------------------------------------------------------------------


def read_tensor(tensor: Tensor, folder: Path | None, what: str) -> Array:
    """A TensorProto as an array, read-only where it is a view of the file's bytes.

    `folder` is where external data may lie; None for a model that came as bytes. Raises `OnnxError` where the dims,
    the type and the data do not fit each other.
    """
    kind, shape = int(tensor.data_type), tuple(int(size) for size in tensor.dims)
    if kind not in ELEMENT_TYPES:
        raise OnnxError(f"{what} has the element type {kind}, which is none of ONNX's; the file is damaged.")
    if any(size < 0 for size in shape) or len(shape) > MOST_AXES:
        raise OnnxError(f"{what} declares the shape {shape}, which no array can have; the file is damaged.")
    if tensor.segment is not None:
        raise OnnxError(f"{what} is split into segments, which no writer does; save the model again.")
    _, bits, field = ELEMENT_TYPES[kind]
    count = prod(shape)
    nbytes = -(-count * bits // 8)
    try:
        if tensor.data_location == EXTERNAL:
            return _external(tensor, folder, shape, kind, nbytes, what)
        if tensor.raw_data is not None:
            _same_length(what, shape, kind, len(tensor.raw_data), nbytes, "bytes")
            if bits >= 8 and kind in PLAIN:
                little = numpy_type(kind).newbyteorder("<")
                stored = _lying_well(tensor, tensor.raw_data, little).reshape(shape)
                return stored.astype(little.newbyteorder("="), copy=False)
        else:
            values = _values(tensor, kind, field)
            _same_length(what, shape, kind, len(values), _entries(kind, count, bits), "values")
            if kind in PLAIN:
                return _typed(values, kind, field).reshape(shape)
        # what NumPy has no type for
        onnx = onnx_package()
        array: Array = onnx.numpy_helper.to_array(onnx.TensorProto.FromString(bytes(tensor.content)))
    except OnnxError:
        raise
    except (ValueError, TypeError, OverflowError, UnicodeDecodeError) as error:
        raise OnnxError(f"{what} of shape {shape} cannot be read ({error}); the file is damaged.") from error
    return array


def _lying_well(tensor: Tensor, raw: memoryview, dtype: np.dtype[Any]) -> Array:
    """The bytes of a tensor as a vector that begins where arrays do: a view of the file's if they are ours and there is
    room to move them, over the fields before them, which have been read; else a copy."""
    if not raw:
        return np.empty(0, dtype)
    flat = np.frombuffer(raw, dtype)
    beyond = address(flat) % ALIGNED
    if not beyond:
        return flat
    before = address(flat) - address(np.frombuffer(tensor.content, np.uint8))
    if raw.readonly or not beyond <= before < len(tensor.content) or len(raw) < ALIGNED:
        return flat.copy()
    moved = tensor.content[before - beyond : before - beyond + len(raw)]
    moved[:] = raw
    tensor.raw_data = moved
    return np.frombuffer(moved, dtype)


def _values(tensor: Tensor, kind: int, field: str) -> Any:
    """The entries of a field of values that are not raw."""
    parts = getattr(tensor, field)
    return parts if kind == STRING else numbers(parts, TYPED[field][0])


def _typed(values: Any, kind: int, field: str) -> Array:
    """Entries as elements: strings; floats of 16 bits by their bits; complex ones by their parts."""
    dtype = numpy_type(kind)
    if kind == STRING:
        texts = np.empty(len(values), object)
        texts[:] = [str(text, "utf-8") for text in values]
        return texts
    entries: Array = values.astype(TYPED[field][1], copy=False)
    if dtype == np.float16:
        return entries.astype(np.uint16).view(np.float16)
    return entries.view(dtype) if dtype.kind == "c" else entries.astype(dtype, copy=False)


def require_honest(tensors: Iterable[Tensor], folder: Path | None) -> None:
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


def _entries(kind: int, count: int, bits: int) -> int:
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


def _external(tensor: Tensor, folder: Path | None, shape: Shape, kind: int, nbytes: int, what: str) -> Array:
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


# ---- attributes -----------------------------------------------------------------------------------------------------


def read_attribute(proto: Attribute, node: Node, known: Signature | None, folder: Path | None) -> Any:
    """The value of an attribute; None for graphs, which `loading` reads, types and sparse tensors."""
    name, kind = proto.name, proto.type
    if known is not None:
        if name not in known.attributes:
            has = f"it has {', '.join(sorted(known.attributes))}" if known.attributes else "it has none"
            raise OnnxError(f"the {node.label} has an attribute {name!r}, which {node.op_type} does not have; {has}.")
        wanted = known.attributes[name]
        kind = kind or wanted  # files of the first version do not say
        if kind != wanted:
            raise _mistyped(node, name, *(KINDS.get(one, (str(one), ""))[0] for one in (kind, wanted)))
    if proto.ref_attr_name:
        raise OnnxError(f"the {node.label} takes {name!r} from a function that is not there.")
    if kind not in KINDS:
        raise OnnxError(f"the {node.label} has an attribute {name!r} of no type; the file is damaged.")
    for field in proto.given:
        if FIELDS.get(field, KINDS[kind][0]) != KINDS[kind][0]:
            raise _mistyped(node, name, FIELDS[field], KINDS[kind][0])
    return _value(proto, KINDS[kind][0], f"attribute {name!r} of the {node.label}", folder)


def _mistyped(node: Node, name: str, got: str, wanted: str) -> OnnxError:
    return OnnxError(f"the {node.label} has an attribute {name!r} of type {got}; it must be {wanted}.")


def _value(proto: Attribute, kind: str, what: str, folder: Path | None) -> Any:
    if kind == "INT":
        return proto.i
    if kind == "INTS":
        return list(proto.ints)
    if kind == "FLOAT":
        return proto.f
    if kind == "FLOATS":
        return list(proto.floats)
    if kind == "STRING":
        return str(proto.s, "utf-8", "replace")
    if kind == "STRINGS":
        return [str(text, "utf-8", "replace") for text in proto.strings]
    return read_tensor(proto.t or Tensor(), folder, what) if kind == "TENSOR" else None
