"""The messages of an ONNX file, read from Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding).

Fields have the names of `onnx.proto`; one that a file leaves out is what its class says, and what nobody here reads is
passed over. Nothing is copied but names and short numbers: bytes are views of the file's.

The package `onnx` reads the same, but importing it takes as long as loading a small net.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import numpy as np

from .._core.arrays import Array

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5  # wire types: the last three bits of a tag
MOST_DEPTH: Final = 100  # messages within each other, as elsewhere
LONGEST_VARINT: Final = 10  # bytes
SIGN: Final = 1 << 63

# How the content of a field is read.
TEXT, BYTES, NUMBER, REAL, NUMBERS, REALS = "text", "bytes", "number", "real", "numbers", "reals"
# Many numbers, which stay as they are: bytes where they lie one after the other, and single ones.
NUMBER_PARTS, REAL_PARTS, DOUBLE_PARTS = "number parts", "real parts", "double parts"
WIRE: Final = {
    NUMBER: VARINT, NUMBERS: VARINT, NUMBER_PARTS: VARINT, REAL: FIXED32, REALS: FIXED32, REAL_PARTS: FIXED32,
    DOUBLE_PARTS: FIXED64,
}  # fmt: skip
PARTS: Final = (NUMBER_PARTS, REAL_PARTS, DOUBLE_PARTS)
LISTS: Final = (NUMBERS, REALS)


class Damaged(ValueError):
    """Bytes that are no message."""


class Message:
    """A message with its fields as attributes; `given` has those that the file has."""

    FIELDS: ClassVar[dict[int, tuple[str, Any, bool]]]  # by tag: name, how it is read, whether it is repeated

    @property
    def given(self) -> dict[str, Any]:
        """The fields that the file has, by name."""
        return self.__dict__


def _fields(**fields: tuple[int, Any] | tuple[int, Any, bool]) -> dict[int, tuple[str, Any, bool]]:
    """The fields of a message by their tags, of (number, how it is read, whether it is repeated)."""
    made: dict[int, tuple[str, Any, bool]] = {}
    for name, (number, how, *repeated) in fields.items():
        many = how in LISTS or how in PARTS  # written one after the other, or one field each
        kept = made[number << 3 | WIRE.get(how, LENGTH)] = (name, how, bool(repeated) or many)
        if many:
            made[number << 3 | LENGTH] = kept
    return made


class Entry(Message):
    """A StringStringEntryProto."""

    key = value = ""
    FIELDS = _fields(key=(1, TEXT), value=(2, TEXT))


class Tensor(Message):
    """A TensorProto; `content` is the whole message."""

    name = ""
    data_type = data_location = 0
    segment: Any = None
    raw_data: memoryview | None = None
    dims: Any = ()
    float_data: Any = ()
    int32_data: Any = ()
    int64_data: Any = ()
    double_data: Any = ()
    uint64_data: Any = ()
    string_data: Any = ()
    external_data: Any = ()
    content: memoryview
    FIELDS = _fields(
        dims=(1, NUMBERS), data_type=(2, NUMBER), segment=(3, BYTES), float_data=(4, REAL_PARTS),
        int32_data=(5, NUMBER_PARTS), string_data=(6, BYTES, True), int64_data=(7, NUMBER_PARTS), name=(8, TEXT),
        raw_data=(9, BYTES), double_data=(10, DOUBLE_PARTS), uint64_data=(11, NUMBER_PARTS),
        external_data=(13, Entry, True), data_location=(14, NUMBER),
    )  # fmt: skip


class Dimension(Message):
    """A TensorShapeProto.Dimension."""

    dim_value: int | None = None
    dim_param: str | None = None
    FIELDS = _fields(dim_value=(1, NUMBER), dim_param=(2, TEXT))


class Shape(Message):
    """A TensorShapeProto."""

    dim: Any = ()
    FIELDS = _fields(dim=(1, Dimension, True))


class TensorType(Message):
    """A TypeProto.Tensor."""

    elem_type = 0
    shape: Shape | None = None
    FIELDS = _fields(elem_type=(1, NUMBER), shape=(2, Shape))


class Type(Message):
    """A TypeProto; of the other kinds of values the name is enough."""

    tensor_type: TensorType | None = None
    FIELDS = _fields(
        tensor_type=(1, TensorType), sequence_type=(4, BYTES), map_type=(5, BYTES), opaque_type=(7, BYTES),
        sparse_tensor_type=(8, BYTES), optional_type=(9, BYTES),
    )  # fmt: skip


class Value(Message):
    """A ValueInfoProto."""

    name = ""
    type: Type | None = None
    FIELDS = _fields(name=(1, TEXT), type=(2, Type))


class Attribute(Message):
    """An AttributeProto; types and sparse tensors are not looked into."""

    name = ref_attr_name = ""
    type = i = 0
    f = 0.0
    s: memoryview = memoryview(b"")
    t: Tensor | None = None
    g: Any = None
    floats: Any = ()
    ints: Any = ()
    strings: Any = ()
    FIELDS = _fields(
        name=(1, TEXT), f=(2, REAL), i=(3, NUMBER), s=(4, BYTES), t=(5, Tensor), floats=(7, REALS), ints=(8, NUMBERS),
        strings=(9, BYTES, True), tensors=(10, BYTES, True), graphs=(11, BYTES, True), tp=(14, BYTES),
        type_protos=(15, BYTES, True), type=(20, NUMBER), ref_attr_name=(21, TEXT), sparse_tensor=(22, BYTES),
        sparse_tensors=(23, BYTES, True),
    )  # fmt: skip


class Node(Message):
    """A NodeProto."""

    name = op_type = domain = ""
    input: Any = ()
    output: Any = ()
    attribute: Any = ()
    FIELDS = _fields(
        input=(1, TEXT, True), output=(2, TEXT, True), name=(3, TEXT), op_type=(4, TEXT),
        attribute=(5, Attribute, True), domain=(7, TEXT),
    )  # fmt: skip


class Graph(Message):
    """A GraphProto."""

    name = ""
    node: Any = ()
    initializer: Any = ()
    input: Any = ()
    output: Any = ()
    sparse_initializer: Any = ()
    FIELDS = _fields(
        node=(1, Node, True), name=(2, TEXT), initializer=(5, Tensor, True), input=(11, Value, True),
        output=(12, Value, True), sparse_initializer=(15, BYTES, True),
    )  # fmt: skip


Attribute.FIELDS |= _fields(g=(6, Graph))


class OperatorSet(Message):
    """An OperatorSetIdProto."""

    domain = ""
    version = 0
    FIELDS = _fields(domain=(1, TEXT), version=(2, NUMBER))


class Function(Message):
    """A FunctionProto, of which the name alone is read."""

    name = ""
    FIELDS = _fields(name=(1, TEXT))


class Model(Message):
    """A ModelProto."""

    graph: Graph | None = None
    opset_import: Any = ()
    functions: Any = ()
    FIELDS = _fields(graph=(7, Graph), opset_import=(8, OperatorSet, True), functions=(25, Function, True))


def read_model(content: memoryview) -> Model:
    """The model whose bytes these are; raises `Damaged`."""
    model = Model()
    try:
        _read(model, content, 0, len(content), 0)
    except IndexError:
        raise Damaged("it ends within a field") from None
    except UnicodeDecodeError as error:
        raise Damaged(f"a name is no UTF-8: {error.reason}") from None
    return model


def _read(message: Message, data: memoryview, at: int, end: int, depth: int) -> None:
    """The fields between two places, into a message: one that is given twice in parts has both."""
    fields, values = message.FIELDS, message.__dict__
    if depth > MOST_DEPTH:
        raise Damaged(f"more than {MOST_DEPTH} messages lie within each other")
    while at < end:
        tag = data[at]
        at += 1
        if tag > 127:
            tag, at = _varint(data, at - 1)
        field, wire = fields.get(tag), tag & 7
        value: Any
        if wire == LENGTH:
            size = data[at]
            at += 1
            if size > 127:
                size, at = _varint(data, at - 1)
            begin, at = at, at + size
            if at > end:
                raise Damaged("a field is longer than what it lies in")
            if field is None:
                continue
            name, how, repeated = field
            if how is TEXT:
                value = str(data[begin:at], "utf-8")
            elif how is BYTES or how in PARTS:
                value = data[begin:at]
            elif how in LISTS:
                values.setdefault(name, []).extend(numbers([data[begin:at]], WIRE[how]).tolist())
                continue
            else:
                value = how() if repeated else values.get(name) or how()
                if how is Tensor:
                    value.content = data[begin:at]
                _read(value, data, begin, at, depth + 1)
        elif wire == VARINT:
            value = data[at]
            at += 1
            if value > 127:
                value, at = _varint(data, at - 1)
                value -= (value & SIGN) << 1
            if field is None:
                continue
            name, _, repeated = field
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
            if at + size > end:
                raise Damaged("a number is longer than what it lies in")
            begin, at = at, at + size
            if field is None:
                continue
            name, _, repeated = field
            value = np.frombuffer(data[begin:at], "<f4" if wire == FIXED32 else "<f8").item()
        else:  # groups, which ONNX has none of, and what is no wire type
            raise Damaged(f"a field is of the wire type {wire}")
        if repeated:
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    if at > end:
        raise Damaged("a number is longer than what it lies in")


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number, seven bits a byte, and the place behind it."""
    value = shift = 0
    for place in range(at, at + LONGEST_VARINT):
        byte = data[place]
        value |= (byte & 127) << shift
        if byte < 128:
            return value & ((1 << 64) - 1), place + 1
        shift += 7
    raise Damaged(f"a number has more than {LONGEST_VARINT} bytes")


def numbers(parts: Any, wire: int) -> Array:
    """Numbers of a wire type as they lie in a file, one after the other or single: int64, float32 or float64."""
    kind = np.dtype({VARINT: np.int64, FIXED32: np.float32, FIXED64: np.float64}[wire])
    made = [_packed(one, wire) if isinstance(one, memoryview) else np.array([one], kind) for one in parts]
    return made[0] if len(made) == 1 else np.concatenate([np.empty(0, kind), *made])


def _packed(content: memoryview, wire: int) -> Array:
    if wire == VARINT:
        return _varints(np.frombuffer(content, np.uint8))
    kind = np.dtype("<f4" if wire == FIXED32 else "<f8")
    if len(content) % kind.itemsize:
        raise Damaged("packed numbers end within one")
    return np.frombuffer(content, kind).astype(kind.newbyteorder("="))


def _varints(data: Array) -> Array:
    """Packed numbers, by as many steps as the longest has bytes."""
    ends = np.flatnonzero(data < 128)
    if data.size and (not ends.size or ends[-1] != data.size - 1):
        raise Damaged("packed numbers end within one")
    begins = np.concatenate([[0], ends + 1])[: ends.size]
    lengths = ends - begins + 1
    longest = int(lengths.max(initial=0))
    if longest > LONGEST_VARINT:
        raise Damaged(f"a number has more than {LONGEST_VARINT} bytes")
    values = np.zeros(ends.size, np.uint64)
    for place in range(longest):
        there = lengths > place
        values[there] |= (data[begins[there] + place] & 127).astype(np.uint64) << np.uint64(7 * place)
    return values.view(np.int64)
