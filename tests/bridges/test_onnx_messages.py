"""The reader of ONNX's files against the package `onnx`: messages of every form, typed values, what is damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")

from onnx_models import model, small_net  # noqa: E402

from fastconv.graph.operators import LATEST_OPSET, names  # noqa: E402
from fastconv.graph.signature import signature  # noqa: E402
from fastconv.graph.tensors import ELEMENT_TYPES, STRING  # noqa: E402
from fastconv.onnx import InferenceSession, OnnxError  # noqa: E402
from fastconv.onnx.loading import load  # noqa: E402
from fastconv.onnx.messages import Damaged, Tensor, _read, read_model  # noqa: E402
from fastconv.onnx.reading import read_tensor  # noqa: E402

TOOLS = Path(__file__).resolve().parents[2] / "tools"
make = onnx.helper.make_node


def parsed(proto, content=None) -> Tensor:
    data = memoryview(proto.SerializeToString() if content is None else content)
    tensor = Tensor()
    tensor.content = data
    _read(tensor, data, 0, len(data), 0)
    return tensor


def test_schemas_are_those_of_the_package(monkeypatch):
    """`tools/schemas.py` wrote them; of a package that knows other operator sets what both know is compared."""
    monkeypatch.syspath_prepend(str(TOOLS))
    from schemas import signature_of

    latest = onnx.defs.onnx_opset_version()
    for name in names():
        if not onnx.defs.has(name, ""):
            continue
        for version in range(1, min(LATEST_OPSET, latest) + 1):
            try:
                schema = onnx.defs.get_schema(name, version, "")
            except onnx.defs.SchemaError:  # younger than the model's operator set
                schema = onnx.defs.get_schema(name, "")
                if latest != LATEST_OPSET:
                    continue
            assert signature(name, version, "") == signature_of(schema), (name, version)
    assert signature("Conv", 11, "com.microsoft") is None and signature("Nothing", 11, "") is None


@pytest.mark.parametrize("kind, raw", [
    (kind, raw) for kind in sorted(ELEMENT_TYPES) for raw in (False, True) if not (raw and kind == STRING)
])  # fmt: skip
def test_tensors_of_every_type(kind, raw):
    name = ELEMENT_TYPES[kind][0]
    values = [b"a", "\u00e9".encode(), b""] if kind == STRING else [0, 1, 1] if "8e8m0" not in name else [1, 2, 4]
    if kind in (14, 15):
        values = [1 + 2j, -3j, 0]
    elif kind in (1, 10, 11, 16):
        values = [0.5, -2, 1e4]
    elif kind in (3, 5, 6, 7):
        values = [-1, 100, -128]
    proto = onnx.helper.make_tensor("t", kind, [3], values)
    if raw:
        proto = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(proto), "t")
    wanted = onnx.numpy_helper.to_array(proto)
    got = read_tensor(parsed(proto), None, "t")
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    assert got.tolist() == wanted.tolist()


def test_numbers_of_any_length_and_form():
    numbers = [0, 1, 127, 128, -1, 1 << 40, -(1 << 63), (1 << 63) - 1]
    proto = onnx.helper.make_tensor("t", 7, [len(numbers)], numbers)
    assert read_tensor(parsed(proto), None, "t").tolist() == numbers
    single = b"".join(b"\x38" + _varint(number) for number in numbers)  # a field each, as old writers do
    proto.ClearField("int64_data")
    content = proto.SerializeToString() + single
    assert read_tensor(parsed(proto, content), None, "t").tolist() == numbers
    half = onnx.helper.make_tensor("t", 7, [4], numbers[:4]).SerializeToString()
    content = half + b"".join(b"\x38" + _varint(number) for number in numbers[4:])
    proto = parsed(proto, content)
    proto.dims = [len(numbers)]
    assert read_tensor(proto, None, "t").tolist() == numbers


def _varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes([*made, number])


@pytest.mark.parametrize("name", ["", "n", "a name of some length", "x" * 200])
@pytest.mark.parametrize("before", range(16))
def test_values_begin_where_arrays_do(name, before):
    """Wherever they lie in the file: moved in its bytes if these are ours, copied if not."""
    values = np.arange(300, dtype=np.float32)
    content = onnx.numpy_helper.from_array(values, name).SerializeToString()
    held = np.zeros(before + len(content), np.uint8)
    held[before:] = np.frombuffer(content, np.uint8)
    fixed = read_tensor(parsed(None, memoryview(held.tobytes())[before:]), None, "t")
    ours = read_tensor(parsed(None, held.data[before:]), None, "t")
    for array in (ours, fixed):
        assert array.flags.aligned and array.__array_interface__["data"][0] % 16 == 0
        assert np.array_equal(array, values)
    if len(name) > 4:
        assert np.may_share_memory(ours, held)


def test_a_message_in_parts_is_one():
    """Fields of a graph that is given twice add up, as Protocol Buffers has it."""
    built = model(onnx, [make("Relu", ["x"], ["a"]), make("Neg", ["a"], ["y"])], {"x": [2]}, {"y": None})
    second = onnx.ModelProto()
    second.graph.node.append(built.graph.node.pop())
    session = InferenceSession(built.SerializeToString() + second.SerializeToString())
    assert session.run(None, {"x": np.array([1, -1], np.float32)})[0].tolist() == [-1, 0]


def test_unknown_fields_are_passed_over():
    content = small_net(onnx).SerializeToString()
    known = load(content)
    number = 2000 << 3
    extra = _varint(number) + b"\x05" + _varint(number | 1) + bytes(8) + _varint(number | 5) + bytes(4)
    extra += _varint(number | 2) + b"\x03abc"
    assert [node.op_type for node in load(content + extra).nodes] == [node.op_type for node in known.nodes]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x3a", "within a field"), (b"\x3a\x05a", "longer than"), (b"\x3b", "wire type 3"), (b"\x3f", "wire type 7"),
        (b"\x3a\xff", "within a field"), (b"\x08" + b"\xff" * 10, "more than 10 bytes"), (b"\x0d\x00", "longer than"),
        (b"\x08\x80", "within a field"), (b"\x3a\x03\x12\x01\xff", "no UTF-8"), (b"\x3a\x01\x08", "within a field"),
        (b"\x3a\x01\x08\x08\x01", "longer than"), (b"\x3a\x04\x2a\x02\x0a\x80", "within a field"),
    ],
)  # fmt: skip
def test_damaged_messages(content, words):
    with pytest.raises(Damaged, match=words):
        read_model(memoryview(content))
    with pytest.raises(OnnxError, match="truncated or damaged"):
        load(content)


def test_messages_too_deep_within_each_other():
    inner = b""
    for _ in range(400):  # a graph in an attribute of a node of a graph
        attribute = b"\x32" + _varint(len(inner)) + inner
        node = b"\x2a" + _varint(len(attribute)) + attribute
        inner = b"\x0a" + _varint(len(node)) + node
    with pytest.raises(OnnxError, match="lie within each other"):
        load(b"\x3a" + _varint(len(inner)) + inner)
