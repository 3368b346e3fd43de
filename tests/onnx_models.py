"""ONNX models made for tests: small ones with every kind of operator, and damaged ones."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CORPUS = Path(__file__).parent / "data" / "onnx"
HUGE = (2**62, 2**40, 2**31, -1, 0, -(2**62), 65_537)


def tensor(onnx: Any, name: str, shape: Any, kind: int = 1) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def model(
    onnx: Any, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], constants: Any = (), opset: int = 17
) -> Any:
    """A model of float32 inputs and outputs."""
    graph = onnx.helper.make_graph(
        nodes, "net", [tensor(onnx, *pair) for pair in inputs.items()],
        [tensor(onnx, *pair) for pair in outputs.items()],
        [onnx.numpy_helper.from_array(array, name) for name, array in dict(constants).items()],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


def small_net(onnx: Any) -> Any:
    """Padding, normalisation, a residual block, pooling, resizing, shapes computed from shapes, a dense layer."""
    random_state = np.random.default_rng(0)
    make = onnx.helper.make_node

    def draw(*shape: int) -> Any:
        return random_state.standard_normal(shape).astype(np.float32)

    constants = {
        "w1": draw(4, 3, 3, 3), "scale": draw(4), "shift": draw(4), "mean": draw(4), "variance": np.abs(draw(4)) + 0.5,
        "w2": draw(4, 2, 3, 3), "b2": draw(4), "wt": draw(4, 2, 2, 2), "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "factors": np.array([1, 1, 2, 2], np.float32), "zero": np.array([0]), "rest": np.array([-1]),
        "fc": draw(4, 5), "bias": draw(5), "repeats": np.array([1, 2]), "low": np.float32(0), "high": np.float32(6),
    }  # fmt: skip
    nodes = [
        make("Pad", ["x", "pads"], ["p"], mode="reflect"),
        make("Conv", ["p", "w1"], ["c1"], strides=[2, 2]),
        make("BatchNormalization", ["c1", "scale", "shift", "mean", "variance"], ["n1"]),
        make("Clip", ["n1", "low", "high"], ["a1"]),
        make("Conv", ["a1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1], group=2),
        make("Add", ["a1", "c2"], ["s"]),
        make("Relu", ["s"], ["r"]),
        make("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Resize", ["m", "", "factors"], ["u"], mode="linear"),
        make("Concat", ["u", "r"], ["j"], axis=1),
        make("Split", ["j"], ["left", "right"], axis=1),
        make("ConvTranspose", ["left", "wt"], ["t"], strides=[2, 2]),
        make("Sigmoid", ["t"], ["y2"]),
        make("GlobalAveragePool", ["right"], ["g"]),
        make("Shape", ["g"], ["sh"]),
        make("Gather", ["sh", "zero"], ["n"]),
        make("Concat", ["n", "rest"], ["sh2"], axis=0),
        make("Reshape", ["g", "sh2"], ["f"]),
        make("Gemm", ["f", "fc", "bias"], ["d"]),
        make("Tile", ["d", "repeats"], ["d2"]),
        make("Softmax", ["d2"], ["y"], axis=1),
    ]
    return model(onnx, nodes, {"x": ["n", 3, 8, 8]}, {"y": None, "y2": None}, constants)


def damaged(onnx: Any, data: bytes, seed: int) -> bytes:
    """The file with bytes flipped, cut, repeated or inserted, or with a number in it made absurd."""
    chance = random.Random(seed)
    kind = chance.randrange(8)
    if kind == 7:
        return absurd(onnx, data, chance)
    changed = bytearray(data)
    if kind == 0:
        return bytes(changed[: chance.randrange(len(changed))])
    if kind == 1:
        start = chance.randrange(len(changed))
        del changed[start : start + chance.randrange(1, 64)]
        return bytes(changed)
    if kind == 2:
        start = chance.randrange(len(changed))
        changed[start:start] = changed[start : start + chance.randrange(1, 64)]
        return bytes(changed)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def _numbers(onnx: Any, proto: Any) -> Iterator[tuple[Any, int]]:
    """Every list of integers in a graph, with a place in it."""
    for node in proto.graph.node:
        for attribute in node.attribute:
            yield from ((attribute.ints, at) for at in range(len(attribute.ints)))
    for value in proto.graph.initializer:
        yield from ((value.dims, at) for at in range(len(value.dims)))
        yield from ((value.int64_data, at) for at in range(len(value.int64_data)))


def absurd(onnx: Any, data: bytes, chance: random.Random) -> bytes:
    """A number of the graph replaced: an attribute, a length, an element of a shape."""
    proto = onnx.ModelProto()
    proto.ParseFromString(data)
    for value in proto.graph.initializer:  # integers as a list, so that they can be changed
        if value.data_type == 7:
            numbers = onnx.numpy_helper.to_array(value).ravel().tolist()
            value.ClearField("raw_data")
            value.int64_data.extend(numbers)
    places = list(_numbers(onnx, proto))
    for _ in range(chance.choice((1, 1, 2, 3))):
        numbers, at = chance.choice(places)
        numbers[at] = chance.choice(HUGE)
    return bytes(proto.SerializeToString())
