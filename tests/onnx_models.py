"""ONNX models made for tests: small ones with every kind of operator, and damaged ones."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

CORPUS = Path(__file__).parent / "data" / "onnx"
RNG = np.random.default_rng(0)
RUNS = 3  # of a session: prepared, recorded, done again
HUGE = (2**62, 2**40, 2**31, -1, 0, -(2**62), 65_537)


def draw(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


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


def one_node(onnx: Any, node: Any, arrays: dict[str, Any], opset: int = 19, constants: Any = ()) -> Any:
    """A model of one node that is fed arrays of these types, of any lengths."""
    kind = onnx.helper.np_dtype_to_tensor_dtype
    graph = onnx.helper.make_graph(
        [node], "one", [tensor(onnx, name, [None] * a.ndim, kind(a.dtype)) for name, a in arrays.items()],
        [tensor(onnx, name, None, 0) for name in node.output if name],
        [onnx.numpy_helper.from_array(array, name) for name, array in dict(constants).items()],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])


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


def net_with_bodies(onnx: Any) -> Any:
    """Bodies that read from around, recurrent layers, sampling, regions, attention, transforms."""
    random_state = np.random.default_rng(0)
    make = onnx.helper.make_node

    def draw(*shape: int) -> Any:
        return random_state.standard_normal(shape).astype(np.float32)

    def body(nodes: list[Any], inputs: dict[str, int], outputs: list[str]) -> Any:
        return onnx.helper.make_graph(
            nodes, "body", [tensor(onnx, name, None, kind) for name, kind in inputs.items()],
            [tensor(onnx, name, None, 0) for name in outputs],
        )  # fmt: skip

    constants = {
        "w": draw(4, 3, 3, 3), "offset": draw(1, 18, 8, 8), "mask": draw(1, 9, 8, 8), "grid": draw(1, 5, 5, 2),
        "rois": np.array([[0, 0, 4, 4], [1, 2, 7, 6]], np.float32), "images": np.array([0, 0]), "count": np.array(3),
        "lw": draw(2, 20, 8), "lr": draw(2, 20, 5), "lb": draw(2, 40), "lengths": np.array([4] * 8, np.int32),
        "gw": draw(1, 9, 10), "gr": draw(1, 9, 3), "rows": np.array([4, 8, 8]), "axis": np.array(1),
        "pairs": np.array([4, 8, 10]), "step": np.array(2), "window": draw(4), "flat": np.array([4, 64, 1]),
        "fold": np.array([1, 36, 36]), "image": np.array([8, 8]), "block": np.array([3, 3]), "most": np.array([3]),
        "boxes": draw(1, 8, 4), "limit": np.array([0.5], np.float32), "scores": np.array([1, 32, 8]),
        "zero": np.float32(0), "repeat": np.array([1, 1, 8, 8]), "s0": np.array([0]), "s1": np.array([1]),
        "columns": draw(1, 36, 36),
    }  # fmt: skip
    then = body([make("Relu", ["d"], ["t"])], {}, ["t"])
    other = body([make("Mul", ["d", "x1"], ["t"])], {}, ["t"])
    same = body([], {}, ["h2"])
    turn = [make("Add", ["h", "c"], ["h2"]), make("If", ["on"], ["i"], then_branch=same, else_branch=then),
            make("Tile", ["i", "repeat"], ["all"]), make("Less", ["zero", "limit"], ["go"])]  # fmt: skip
    loop = body(turn, {"turn": 7, "on": 9, "h": 1}, ["go", "i", "all"])
    scan = body([make("Add", ["h", "p"], ["n"]), make("Neg", ["n"], ["o"])], {"h": 1, "p": 1}, ["n", "o"])
    nodes = [
        make("DeformConv", ["x", "w", "offset", "", "mask"], ["d"], pads=[1] * 4),
        make("ReduceMean", ["d"], ["m"], keepdims=0), make("Greater", ["m", "zero"], ["c0"]),
        make("Slice", ["x", "s0", "s1", "s1"], ["x1"]),
        make("If", ["c0"], ["c"], then_branch=then, else_branch=other),
        make("Loop", ["count", "", "c"], ["l", "many"], body=loop),
        make("Reshape", ["l", "rows"], ["r"]),
        make("LSTM", ["r", "lw", "lr", "lb", "lengths"], ["q", "", "qc"], hidden_size=5, direction="bidirectional"),
        make("Transpose", ["q"], ["qt"], perm=[0, 2, 1, 3]), make("Reshape", ["qt", "pairs"], ["qp"]),
        make("GRU", ["qp", "gw", "gr"], ["g"], hidden_size=3, activations=["HardSigmoid", "Softsign"]),
        make("Attention", ["r", "r", "r"], ["a"], q_num_heads=2, kv_num_heads=2, is_causal=1),
        make("Scan", ["zero", "a"], ["sn", "so"], body=scan, num_scan_inputs=1),
        make("Reshape", ["so", "flat"], ["f"]), make("STFT", ["f", "step", "window"], ["st"]),
        make("DFT", ["st", "", "axis"], ["ft"]),
        make("GridSample", ["l", "grid"], ["gs"], padding_mode="reflection", mode="cubic"),
        make("RoiAlign", ["l", "rois", "images"], ["ra"], output_height=2, output_width=2),
        make("Reshape", ["columns", "fold"], ["fo"]), make("Col2Im", ["fo", "image", "block"], ["ci"]),
        make("Reshape", ["r", "scores"], ["sc"]),
        make("NonMaxSuppression", ["boxes", "sc", "most", "limit"], ["nm"]),
        make("Unique", ["nm"], ["u"]),
    ]  # fmt: skip
    outputs = ["g", "ft", "gs", "ra", "ci", "u", "sn", "qc"]
    return model(onnx, nodes, {"x": [1, 3, 8, 8]}, dict.fromkeys(outputs), constants, opset=24)


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


# ---- large graphs, for what loading costs ----------------------------------------------------------------------------

LARGE = (
    "relu", "add", "add the input", "conv", "conv norm relu", "residual", "identity", "dropout", "cast", "concat",
    "sum", "outputs", "initializers", "constants", "quantised", "quantised moves", "quantised twice", "quantised tree",
    "gemm", "factors", "split", "shapes", "silu", "hard swish", "gelu", "norm", "pad", "nearest", "halves",
)  # fmt: skip
Nodes = list[Any]


def large_graph(onnx: Any, kind: str, size: int) -> tuple[Any, dict[str, Any]]:
    """A graph of some `size` nodes, and what to feed it."""
    make, one = onnx.helper.make_node, np.ones((1, 4, 3, 3), np.float32)
    shared = {
        "w": np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1), "scale": np.float32(0.5), "zero": np.uint8(3),
        "matrix": np.eye(3, dtype=np.float32), "factor": np.ones((4, 1, 1), np.float32), "three": np.float32(3),
        "low": np.float32(0), "six": np.float32(6), "root": np.float32(0.5**0.5), "one": np.float32(1),
        "pads": np.zeros(8, np.int64), "first": np.array(0),
        "axes": np.array([0]), "rest": np.array([4, 3, 3]), "sizes": np.array([1, 4, 3, 3]),
        **{name: np.ones(4, np.float32) for name in "sbmv"},
    }  # fmt: skip
    steps: dict[str, tuple[int, Any]] = {  # nodes of a link of a chain, and the link from a to b
        "relu": (1, lambda a, b: [make("Relu", [a], [b])]),
        "add": (1, lambda a, b: [make("Add", [a, f"c{b}"], [b])]),
        "add the input": (1, lambda a, b: [make("Add", [a, "x"], [b])]),
        "conv": (1, lambda a, b: [make("Conv", [a, "w"], [b])]),
        "conv norm relu": (3, lambda a, b: [make("Conv", [a, "w"], [f"{b}c"]), make("Relu", [f"{b}n"], [b]),
                                            make("BatchNormalization", [f"{b}c", *"sbmv"], [f"{b}n"])]),
        "residual": (3, lambda a, b: [make("Conv", [a, "w"], [f"{b}c"]), make("Add", [f"{b}c", a], [f"{b}s"]),
                                      make("Relu", [f"{b}s"], [b])]),
        "identity": (1, lambda a, b: [make("Identity", [a], [b])]),
        "dropout": (1, lambda a, b: [make("Dropout", [a], [b])]),
        "cast": (1, lambda a, b: [make("Cast", [a], [b], to=1)]),
        "constants": (2, lambda a, b: [make("Constant", [], [f"{b}c"], value_float=1.0),
                                       make("Mul", [a, f"{b}c"], [b])]),
        "quantised": (2, lambda a, b: [make("QuantizeLinear", [a, "scale", "zero"], [f"{b}q"]),
                                       make("DequantizeLinear", [f"{b}q", "scale", "zero"], [b])]),
        "gemm": (1, lambda a, b: [make("MatMul", [a, "matrix"], [b])]),
        "shapes": (5, lambda a, b: [make("Shape", [a], [f"{b}s"]), make("Gather", [f"{b}s", "first"], [f"{b}g"]),
                                    make("Unsqueeze", [f"{b}g", "axes"], [f"{b}u"]), make("Reshape", [a, f"{b}c"], [b]),
                                    make("Concat", [f"{b}u", "rest"], [f"{b}c"], axis=0)]),
        "silu": (2, lambda a, b: [make("Sigmoid", [a], [f"{b}s"]), make("Mul", [a, f"{b}s"], [b])]),
        "hard swish": (4, lambda a, b: [make("Add", [a, "three"], [f"{b}p"]), make("Mul", [a, f"{b}c"], [f"{b}m"]),
                                        make("Clip", [f"{b}p", "low", "six"], [f"{b}c"]),
                                        make("Div", [f"{b}m", "six"], [b])]),
        "gelu": (5, lambda a, b: [make("Mul", [a, "root"], [f"{b}d"]), make("Erf", [f"{b}d"], [f"{b}e"]),
                                  make("Add", [f"{b}e", "one"], [f"{b}f"]), make("Mul", [a, f"{b}f"], [f"{b}g"]),
                                  make("Mul", [f"{b}g", "scale"], [b])]),
        "norm": (7, lambda a, b: [make("ReduceMean", [a], [f"{b}m"], axes=[1]), make("Sub", [a, f"{b}m"], [f"{b}d"]),
                                  make("Mul", [f"{b}d", f"{b}d"], [f"{b}s"]),
                                  make("ReduceMean", [f"{b}s"], [f"{b}v"], axes=[1]),
                                  make("Add", [f"{b}v", "scale"], [f"{b}e"]), make("Sqrt", [f"{b}e"], [f"{b}r"]),
                                  make("Div", [f"{b}d", f"{b}r"], [b])]),
        "pad": (2, lambda a, b: [make("Pad", [a, "pads"], [f"{b}p"]), make("Conv", [f"{b}p", "w"], [b])]),
        "nearest": (1, lambda a, b: [make("Resize", [a, "", "", "sizes"], [b], mode="nearest")]),
    }  # fmt: skip
    if kind in steps:
        count, link = steps[kind]
        length = size // count
        nodes = [node for i in range(length) for node in link(f"v{i}" if i else "x", f"v{i + 1}")]
        given = {**shared, **({f"cv{i + 1}": np.float32(1) for i in range(length)} if kind == "add" else {})}
        return model(onnx, nodes, {"x": [1, 4, 3, 3]}, {f"v{length}": None}, given), {"x": one}
    names = [f"a{i}" for i in range(size)]
    fan = [make("Relu", ["x"], [name]) for name in names]
    quantised = [make("QuantizeLinear", ["x", "scale", "zero"], ["v0"])]
    if kind == "halves":
        chained = [make("Mul", [f"v{i}" if i else "x", "h"], [f"v{i + 1}"]) for i in range(size)]
        built = model(onnx, chained, {}, {}, {"h": np.float16(1)})
        built.graph.input.append(tensor(onnx, "x", [1, 4, 3, 3], 10))
        built.graph.output.append(tensor(onnx, f"v{size}", None, 10))
        return built, {"x": one.astype(np.float16)}
    others: dict[str, tuple[Nodes, list[str]]] = {
        "concat": ([*fan, make("Concat", names, ["y"], axis=1)], ["y"]),
        "sum": ([*fan, make("Sum", names, ["y"])], ["y"]),
        "outputs": (fan, names),
        "initializers": ([make("Relu", ["x"], ["y"])], ["y"]),
        "split": ([make("Concat", ["x"] * (size // 4), ["j"], axis=1), make("Split", ["j"], names[: size // 4], axis=1),
                   make("Concat", names[: size // 4], ["y"], axis=1)], ["y"]),
        "factors": ([make("Conv", ["x", "w"], ["v0"]),
                     *(make("Mul", [f"v{i}", "factor"], [f"v{i + 1}"]) for i in range(size))], [f"v{size}"]),
        "quantised moves": ([*quantised, *(make("Transpose", [f"v{i}"], [f"v{i + 1}"], perm=[0, 1, 3, 2])
                                           for i in range(size)),
                             make("DequantizeLinear", [f"v{size}", "scale", "zero"], ["y"])], ["y"]),
        "quantised twice": ([*quantised, *(make("DequantizeLinear", ["v0", "scale", "zero"], [name]) for name in names),
                             make("Concat", names, ["y"], axis=1)], ["y"]),
        "quantised tree": ([*quantised, *(node for i in range(size // 2) for node in (
                                make("Transpose", [f"v{i}"], [f"v{i + 1}"], perm=[0, 1, 3, 2]),
                                make("DequantizeLinear", [f"v{i + 1}", "scale", "zero"], [names[i]]))),
                            make("Sum", names[: size // 2], ["y"])], ["y"]),
    }  # fmt: skip
    nodes, outputs = others[kind]
    given = {**shared, **({f"unused{i}": np.float32(1) for i in range(size)} if kind == "initializers" else {})}
    return model(onnx, nodes, {"x": [1, 4, 3, 3]}, dict.fromkeys(outputs), given), {"x": one}


def load_and_run(data: bytes, feeds: dict[str, Any]) -> Any:
    """A session that has run once."""
    from fastconv.onnx import InferenceSession

    session = InferenceSession(data, num_threads=1)
    session.run(None, feeds)
    return session


def steps_of_python(run: Callable[[], Any]) -> int:
    """Lines and calls of Python, those of loops within a line too."""
    count = 0

    def step(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        run()
    finally:
        sys.settrace(before)
    return count
