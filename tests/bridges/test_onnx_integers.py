"""Quantised models on bytes: against the graph step by step (`quantized="exact"`), the evaluator of the package `onnx`,
and ONNX Runtime where that is installed.
"""

import importlib
import importlib.util
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastconv import ConvError
from fastconv.onnx import InferenceSession

onnx = pytest.importorskip("onnx", reason="needs onnx: pip install fastconv[onnx]")
make = onnx.helper.make_node
BYTES = ("uint8", "int8")


class Net:
    """A model that is put together: floats, and their way to bytes and back."""

    def __init__(self, seed: int, kind: str = "uint8") -> None:
        self.rng, self.kind = np.random.default_rng(seed), kind
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: dict[str, list[Any]] = {}
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def op(self, op_type: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(make(op_type, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, array: Any) -> str:
        name = self.name()
        self.constants[name] = np.asarray(array)
        return name

    def grid(self, scale: float = 0.0, kind: str = "") -> list[str]:
        """A scale and a zero point."""
        kind = kind or self.kind
        zero = int(self.rng.integers(0, 256)) - (128 if kind == "int8" else 0)
        scale = scale or float(np.exp2(self.rng.uniform(-6, -3)))
        return [self.constant(np.float32(scale)), self.constant(np.array(zero, kind))]

    def rounded(self, value: str, grid: list[str] | None = None) -> str:
        """A value to bytes and back."""
        grid = grid or self.grid()
        return str(self.op("DequantizeLinear", self.op("QuantizeLinear", value, *grid), *grid))

    def input(self, *shape: int) -> str:
        name = f"x{len(self.inputs)}"
        self.inputs[name] = list(shape)
        return self.rounded(name)

    def weight(self, *shape: int, axis: int | None = 0, kind: str = "int8") -> str:
        values = self.rng.integers(-127 if kind == "int8" else 0, 128, shape).astype(kind)
        count = 1 if axis is None else shape[axis]
        scale = np.exp2(self.rng.uniform(-9, -6, count)).astype(np.float32)
        zero = np.zeros(count, kind) if kind == "int8" else self.rng.integers(90, 130, count).astype(kind)
        if axis is None:
            scale, zero = scale.reshape(()), zero.reshape(())
        parts = [self.constant(part) for part in (values, scale, zero)]
        return str(self.op("DequantizeLinear", *parts, **({} if axis is None else {"axis": axis})))

    def bias(self, x_grid: str, weight: str, channels: int) -> str:
        """A bias of int32 in steps of the sums."""
        node = next(node for node in self.nodes if weight in node.output)
        scale = self.constants[x_grid] * self.constants[node.input[1]]
        values = self.constant(self.rng.integers(-3000, 3000, channels).astype(np.int32))
        return str(self.op("DequantizeLinear", values, self.constant(np.float32(scale)), axis=0))

    def model(self, *outputs: str, opset: int = 17) -> Any:
        value = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            self.nodes, "net", [value(name, 1, shape) for name, shape in self.inputs.items()],
            [value(name, 1, None) for name in outputs],
            [onnx.numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )  # fmt: skip
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=9)

    def feeds(self) -> dict[str, np.ndarray]:
        return {
            name: self.rng.standard_normal(shape).astype(np.float32) * 2 for name, shape in self.inputs.items()
        }  # fmt: skip


@dataclass
class Case:
    """An operator between bytes: how it is built, by which nodes it is done, and how far it may be off."""

    build: Callable[[Net], str]
    done_by: str
    off: int = 0


def conv(net: Net, *shape: int, x: tuple[int, ...] = (2, 6, 9, 8), axis: int | None = 0, kind: str = "int8",
         biased: bool = True, **attributes: Any) -> str:  # fmt: skip
    value = net.input(*x)
    w = net.weight(*shape, axis=axis, kind=kind)
    grid = next(node for node in net.nodes if value in node.output).input[1]
    more = [net.bias(grid, w, shape[0])] if biased else []
    return str(net.op("Conv", value, w, *more, **attributes))


def residual(
    net: Net, op_type: str, channels: int, outputs: int, other: tuple[int, ...] = (), turned: bool = False
) -> str:
    """A convolution, its bytes, and the sum with another value, in either order."""
    x = conv(net, outputs, channels, 1, 1, x=(2, channels, 5, 6))
    parts = [net.rounded(x), net.input(*(other or (2, outputs, 5, 6)))]
    return str(net.op(op_type, *(parts[::-1] if turned else parts)))


def normal(net: Net, value: str, channels: int) -> str:
    """A BatchNormalization, of which some factors are negative."""
    scale = net.rng.uniform(0.5, 2, channels) * net.rng.choice([-1, 1], channels)
    parts = (scale, net.rng.normal(0, 1, channels), net.rng.normal(0, 1, channels), net.rng.uniform(0.5, 2, channels))
    return str(net.op("BatchNormalization", value, *(net.constant(part.astype(np.float32)) for part in parts)))


def by_channel(net: Net, outputs: int) -> str:
    """A depthwise convolution of bytes whose channels have scales of their own."""
    value = str(net.op("Relu", conv(net, 6, 4, 1, 1, x=(2, 4, 7, 6))))
    zero = net.constant(np.full(6, 3 if net.kind == "uint8" else -100, net.kind))
    grid = [net.constant(np.exp2(net.rng.uniform(-6, -4, 6)).astype(np.float32)), zero]
    value = net.op("DequantizeLinear", net.op("QuantizeLinear", value, *grid, axis=1), *grid, axis=1)
    return str(net.op("Conv", value, net.weight(outputs, 1, 3, 3), group=6, pads=[1] * 4))


def silu_of(net: Net, value: str) -> str:
    return str(net.op("Mul", value, net.op("Sigmoid", value)))


def clipped(net: Net, value: str) -> str:
    return str(net.op("Clip", value, net.constant(np.float32(-0.25)), net.constant(np.float32(0.75))))


def se(net: Net) -> str:
    x, s = net.input(2, 4, 5, 6), net.input(2, 4, 1, 1)
    return str(net.op("Mul", x, s))


def silu(net: Net, between: bool) -> str:
    x = net.input(2, 3, 5, 6)
    s = net.op("Sigmoid", x)
    return str(net.op("Mul", x, net.rounded(s, net.grid(1 / 256)) if between else s))


def of(op_type: str, *shape: int, **attributes: Any) -> Callable[[Net], str]:
    return lambda net: str(net.op(op_type, net.input(*(shape or (2, 3, 7, 6))), **attributes))


def behind(op_type: str, inner: Callable[[Net], str], **attributes: Any) -> Callable[[Net], str]:
    return lambda net: str(net.op(op_type, inner(net), **attributes))


def with_constants(op_type: str, *values: Any, shape: tuple[int, ...] = (2, 4, 7, 6), **more: Any) -> Any:
    def build(net: Net) -> str:
        x = net.input(*shape)
        return str(net.op(op_type, x, *["" if v is None else net.constant(np.array(v)) for v in values], **more))

    return build


def dense(op_type: str, shape: tuple[int, ...], weight: tuple[int, int], axis: int | None, **attributes: Any) -> Any:
    def build(net: Net) -> str:
        value = net.input(*shape)
        w = net.weight(*weight, axis=axis)
        grid = next(node for node in net.nodes if value in node.output).input[1]
        outputs = weight[0 if attributes.get("transB") else 1]
        more = [net.bias(grid, w, outputs)] if op_type == "Gemm" else []
        y = net.op(op_type, value, w, *more, **attributes)
        if op_type == "MatMul":
            y = net.op("Add", y, net.constant(net.rng.standard_normal(outputs).astype(np.float32)))
        return str(y)

    return build


CASES = {
    "convolution": Case(lambda n: conv(n, 8, 6, 3, 3, pads=[1] * 4), "QConv", 1),
    "a tensor's scale": Case(lambda n: conv(n, 8, 6, 3, 3, axis=None, strides=[2, 2]), "QConv", 1),
    "weights of uint8": Case(lambda n: conv(n, 5, 6, 2, 3, kind="uint8", dilations=[2, 1]), "QConv", 1),
    "depthwise": Case(lambda n: conv(n, 6, 1, 3, 3, group=6, auto_pad="SAME_UPPER", strides=[2, 2]), "QConv", 1),
    "groups": Case(lambda n: conv(n, 4, 3, 3, 3, group=2, biased=False), "QConv", 1),
    "one axis": Case(lambda n: conv(n, 4, 3, 5, x=(2, 3, 20), pads=[2, 2]), "QConv", 1),
    "three axes": Case(lambda n: conv(n, 4, 3, 2, 3, 1, x=(1, 3, 5, 5, 4)), "QConv", 1),
    "relu": Case(behind("Relu", lambda n: conv(n, 8, 6, 1, 1)), "QConv", 1),
    "clip": Case(lambda n: clipped(n, conv(n, 8, 6, 1, 1)), "QConv", 1),
    "a normalisation": Case(lambda n: normal(n, conv(n, 8, 6, 3, 3, biased=False), 8), "QConv", 1),
    "a normalisation behind a bias, relu": Case(
        behind("Relu", lambda n: normal(n, conv(n, 8, 6, 1, 1, axis=None), 8)), "QConv", 1
    ),
    "a normalisation, depthwise": Case(
        lambda n: clipped(n, normal(n, conv(n, 6, 1, 3, 3, group=6, biased=False), 6)), "QConv", 1
    ),
    "scales a channel before a depthwise one": Case(lambda n: by_channel(n, 6), "QConv", 2),
    "and with several filters a channel": Case(lambda n: by_channel(n, 12), "QConv", 2),
    "a bias behind": Case(
        lambda n: str(n.op("Add", conv(n, 8, 6, 1, 1, biased=False), n.constant(np.ones((8, 1, 1), np.float32) / 3))),
        "QConv", 1,
    ),
    "gemm": Case(dense("Gemm", (5, 12), (12, 7), 1), "QDense", 1),
    "gemm, transposed": Case(dense("Gemm", (5, 12), (7, 12), 0, transB=1), "QDense", 1),
    "rows of a matrix": Case(dense("MatMul", (2, 3, 12), (12, 7), 1), "QDense", 1),
    "sum": Case(lambda n: str(n.op("Add", n.input(2, 3, 5, 6), n.input(2, 3, 5, 6))), "QBinary"),
    "sum, relu": Case(behind("Relu", lambda n: str(n.op("Add", n.input(2, 3, 5), n.input(2, 3, 5)))), "QBinary"),
    "difference": Case(lambda n: str(n.op("Sub", n.input(2, 3, 5, 6), n.input(3, 1, 6))), "QBinary"),
    "difference alike": Case(lambda n: str(n.op("Sub", n.input(2, 3, 5), n.input(2, 3, 5))), "QBinary"),
    "factors a channel": Case(se, "QBinary"),
    "factors of the last axes": Case(lambda n: str(n.op("Mul", n.input(1, 5, 6), n.input(4, 5, 6))), "QBinary"),
    "a sum in a convolution": Case(lambda n: residual(n, "Add", 8, 24), "QConv", 1),
    "the same, turned, relu": Case(
        behind("Relu", lambda n: residual(n, "Add", 8, 70, turned=True)), "QConv", 1
    ),
    "the same of a broadcast": Case(lambda n: residual(n, "Add", 8, 4, other=(4, 1, 6)), "QConv", 1),
    "the same of many channels": Case(lambda n: residual(n, "Add", 5, 300), "QConv", 1),
    "a function in a convolution": Case(
        lambda n: silu_of(n, n.rounded(conv(n, 70, 6, 3, 3, pads=[1] * 4))), "QConv", 6
    ),
    "another grid in a convolution": Case(lambda n: n.rounded(conv(n, 8, 6, 1, 1)), "QConv", 3),
    "a function of one channel": Case(lambda n: n.rounded(conv(n, 1, 6, 1, 1, x=(1, 6, 5, 7))), "QConv", 3),
    "a sum of one channel": Case(lambda n: residual(n, "Add", 6, 1), "QConv", 1),
    "one channel": Case(lambda n: conv(n, 1, 1, 3, 3, x=(1, 1, 9, 8), pads=[1] * 4), "QConv", 1),
    "one channel, a row": Case(lambda n: conv(n, 2, 1, 1, 3, x=(1, 1, 1, 8), pads=[0, 1] * 2), "QConv", 1),
    "one pixel": Case(lambda n: n.rounded(conv(n, 8, 6, 3, 3, x=(1, 6, 3, 3))), "QConv", 3),
    "one column": Case(lambda n: n.rounded(conv(n, 8, 6, 3, 3, x=(1, 6, 9, 3))), "QConv", 3),
    "a difference behind a convolution": Case(lambda n: residual(n, "Sub", 8, 8), "QBinary", 1),
    "sum with a constant": Case(
        lambda n: str(n.op("Add", n.input(2, 3, 5, 6), n.weight(3, 1, 1, axis=None))), "QBinary"
    ),
    "silu": Case(lambda n: silu(n, False), "QTable"), "silu, rounded between": Case(lambda n: silu(n, True), "QTable"),
    "max pooling": Case(of("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), "MaxPool"),
    "average pooling": Case(of("AveragePool", kernel_shape=[2, 3], strides=[2, 1]), "QAveragePool", 1),
    "averages over the edge": Case(
        of("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=1), "QAveragePool", 1
    ),
    "averages with the edge": Case(
        of("AveragePool", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1), "QAveragePool", 1
    ),
    "averages of a sequence": Case(of("AveragePool", 2, 3, 20, kernel_shape=[4], strides=[3]), "QAveragePool", 1),
    "global average": Case(of("GlobalAveragePool"), "QMean", 1),
    "mean, relu": Case(behind("Relu", of("ReduceMean", 4, 5, 2, 2, axes=[2, 3], keepdims=0)), "QMean", 1),
    "mean of an axis": Case(of("ReduceMean", axes=[-1]), "QMean", 1),
    "nearest": Case(
        with_constants("Resize", None, np.array([1, 1, 2, 2], np.float32), mode="nearest", nearest_mode="floor",
                       coordinate_transformation_mode="asymmetric", opset=None), "Resize"),
    "transposed": Case(of("Transpose", perm=[0, 2, 3, 1]), "Transpose"),
    "flat": Case(of("Flatten"), "Flatten"),
    "another shape": Case(with_constants("Reshape", [0, -1, 6]), "Reshape"),
    "a slice": Case(with_constants("Slice", [0, 1], [2, 5], [1, 2]), "Slice"),
    "some": Case(with_constants("Gather", [3, 0], axis=1), "Gather"),
    "edges": Case(with_constants("Pad", [0, 0, 1, 1, 0, 0, 0, 2]), "Pad"),
    "mirrored edges": Case(with_constants("Pad", [0, 0, 1, 1, 0, 0, 0, 2], mode="reflect"), "Pad"),
    "depth to space": Case(of("DepthToSpace", 1, 8, 3, 4, blocksize=2), "DepthToSpace"),
    "concat": Case(lambda n: str(n.op("Concat", n.input(1, 3, 4, 5), n.input(1, 2, 4, 5), axis=1)), "Concat"),
    "concat, relu": Case(
        behind("Relu", lambda n: str(n.op("Concat", n.input(1, 3, 4, 5), n.input(1, 2, 4, 5), axis=1))), "Concat"
    ),
    **{name: Case(of(name), "QTable") for name in ("Sigmoid", "Tanh", "HardSwish", "Relu", "Exp", "Softplus", "Abs")},
    "leaky": Case(of("LeakyRelu", alpha=0.3), "QTable"), "hard sigmoid": Case(of("HardSigmoid"), "QTable"),
    "a number": Case(with_constants("Mul", np.float32(0.3)), "QTable"),
    "rounded again": Case(lambda n: n.input(2, 3, 5, 6), "QTable"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("name", CASES)
def test_an_operator_between_bytes(name: str, kind: str) -> None:
    """On bytes from the first run on; bit for bit that of the graph step by step, or the integer beside it."""
    case = CASES[name]
    compared = 0
    for seed in range(3):
        net = Net(seed, kind)
        value = case.build(net)
        step = float(np.exp2(net.rng.uniform(-6, -3)))
        grid = net.grid(step)
        built = net.model(net.rounded(value, grid))
        feeds = net.feeds()
        session = InferenceSession(built)
        done = [node.op_type for node in session._graph.nodes]
        assert case.done_by in done, done
        floats = {"QuantizeLinear", "DequantizeLinear", "Elementwise"}
        assert not [one for one in done if one not in floats and one != case.done_by and one[0] != "Q"], done
        exact = InferenceSession(built, quantized="exact").run(None, feeds)[0]
        scale, zero = net.constants[grid[0]], net.constants[grid[1]]
        found = [session.run(None, feeds)[0]]
        for _ in range(4):  # of other values, what is recorded gives what a fresh session gives
            other = net.feeds()
            np.testing.assert_array_equal(session.run(None, other)[0], InferenceSession(built).run(None, other)[0])
        off = np.rint(found[0] / scale) - np.rint(exact / scale)
        assert found[0].shape == exact.shape and np.abs(off).max(initial=0) <= case.off
        assert np.count_nonzero(off) <= max(1, 0.02 * off.size)
        limits = np.iinfo(kind)
        compared += bool(np.ptp(np.rint(exact / scale) + int(zero)) > 0 and limits.max)
    assert compared


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", BYTES)
def test_what_a_convolution_does_too_is_that_behind_it(kind: str, threads: int) -> None:
    """Bit for bit: of tiles of whole rows and of parts, panels and groups of them, before and after it is recorded."""
    for seed, (channels, outputs) in enumerate(((8, 24), (16, 64), (5, 300), (64, 128))):
        net = Net(seed, kind)
        x = net.rounded(conv(net, outputs, channels, 1, 1, x=(2, channels, 5, 6)))
        table = net.rounded(silu_of(net, x)) if seed % 2 else x
        value = net.rounded(str(net.op("Add", table, net.input(2, outputs, 5, 6))))
        built, feeds = net.model(value), net.feeds()
        session = InferenceSession(built, num_threads=threads)
        assert {node.op_type for node in session._graph.nodes}.isdisjoint(("QBinary", "QTable"))
        apart = InferenceSession(net.model(value, *{x, table}), num_threads=threads)  # outputs too
        assert [node.op_type for node in apart._graph.nodes].count("QBinary") == 1
        for _ in range(4):
            np.testing.assert_array_equal(session.run(None, feeds)[0], apart.run(None, feeds)[0])
            feeds = net.feeds()


@pytest.mark.parametrize("name", CASES)
def test_an_empty_batch_between_bytes(name: str) -> None:
    """As many results, from bytes and from the graph step by step alike."""
    net = Net(0)
    built = net.rounded(CASES[name].build(net))
    axes = max(map(len, net.inputs.values()))  # those that a value without a batch is broadcast to
    shapes = {one: (0, *shape[1:]) if len(shape) == axes else shape for one, shape in net.inputs.items()}
    net.inputs = {one: [n or "N" for n in shape] for one, shape in shapes.items()}
    model = net.model(built)
    feeds = {one: np.zeros(shape, np.float32) for one, shape in shapes.items()}
    wanted = InferenceSession(model, quantized="exact").run(None, feeds)[0]
    session = InferenceSession(model)
    for _ in range(3):
        found = session.run(None, feeds)[0]
        assert found.shape == wanted.shape and found.dtype == wanted.dtype


def test_exact_is_the_evaluator_of_the_standard() -> None:
    from onnx.reference import ReferenceEvaluator

    for seed in range(3):
        net = Net(seed)
        x = net.input(2, 6, 9, 8)
        y = net.op("Relu", net.op("Conv", x, net.weight(6, 6, 3, 3), pads=[1] * 4))
        total = net.op("Add", net.rounded(y), x)
        built = net.model(net.rounded(net.op("GlobalAveragePool", net.rounded(total))), opset=21)
        feeds = net.feeds()
        wanted = ReferenceEvaluator(built).run(None, feeds)[0]
        np.testing.assert_array_equal(InferenceSession(built, quantized="exact").run(None, feeds)[0], wanted)


@pytest.mark.parametrize("kinds", [("int8", "uint8", "uint8"), ("int8", "int8", "uint8"), ("uint8", "uint8", "int8")])
def test_sums_of_bytes_of_several_types(kinds: tuple[str, ...]) -> None:
    """Bit for bit those of the graph step by step, natively: nothing is left in floats."""
    for seed in range(4):
        net = Net(seed)
        parts = []
        for kind in kinds[:2]:
            net.kind = kind
            parts.append(net.input(2, 3, 5, 6))
        net.kind = kinds[2]
        built = net.model(net.rounded(str(net.op("Relu", net.op("Add", *parts)))))
        feeds = net.feeds()
        session = InferenceSession(built)
        assert [node.op_type for node in session._graph.nodes].count("QBinary") == 1
        wanted = InferenceSession(built, quantized="exact").run(None, feeds)[0]
        for _ in range(3):
            np.testing.assert_array_equal(session.run(None, feeds)[0], wanted)


def test_a_product_that_nobody_quantises_gives_floats() -> None:
    net = Net(0)
    y = conv(net, 8, 6, 3, 3)
    built, feeds = net.model(net.op("Softmax", net.op("Sigmoid", y), axis=1)), net.feeds()
    session = InferenceSession(built)
    assert [node.op_type for node in session._graph.nodes][:2] == ["QuantizeLinear", "QConv"]
    wanted = InferenceSession(built, quantized="exact").run(None, feeds)[0]
    for _ in range(3):
        np.testing.assert_allclose(session.run(None, feeds)[0], wanted, rtol=1e-5)


def test_values_that_are_read_in_both_ways() -> None:
    """A float that somebody else reads stays; a value that two quantise alike is quantised once."""
    net = Net(1)
    y = conv(net, 6, 6, 1, 1)
    grid = net.grid(0.05)
    a, b = net.rounded(y, grid), net.rounded(y, grid)
    built = net.model(net.rounded(net.op("Add", a, b)))
    done = [node.op_type for node in InferenceSession(built)._graph.nodes]
    assert done.count("QConv") == 1 and "QBinary" not in done  # x + x is a function of x
    both, feeds = net.model(net.rounded(y, grid), y), net.feeds()
    session = InferenceSession(both)
    assert [node.op_type for node in session._graph.nodes].count("QConv") == 1
    for found, wanted in zip(session.run(None, feeds), InferenceSession(both, quantized="exact").run(None, feeds),
                             strict=True):  # fmt: skip
        np.testing.assert_allclose(found, wanted, atol=0.0501)


def test_bytes_go_in_and_out() -> None:
    """Inputs and outputs of uint8, and a QuantizeLinear whose bytes are there already."""
    value = onnx.helper.make_tensor_value_info
    nodes = [
        make("DequantizeLinear", ["x", "s", "z"], ["a"]), make("Relu", ["a"], ["b"]),
        make("QuantizeLinear", ["b", "s", "z"], ["y"]), make("QuantizeLinear", ["a", "s", "z"], ["same"]),
    ]  # fmt: skip
    constants = {"s": np.float32(0.1), "z": np.uint8(30)}
    graph = onnx.helper.make_graph(
        nodes, "net", [value("x", 2, [2, 4])], [value("y", 2, None), value("same", 2, None)],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )  # fmt: skip
    session = InferenceSession(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]))
    x = np.arange(26, 34, dtype=np.uint8).reshape(2, 4)
    for _ in range(3):
        y, same = session.run(None, {"x": x})
        assert y.dtype == np.uint8 and np.array_equal(y, np.maximum(x, 30)) and np.array_equal(same, x)
    assert np.array_equal(pickle.loads(pickle.dumps(session)).run(["y"], {"x": x})[0], np.maximum(x, 30))


def test_what_cannot_be_done_on_bytes_stays_in_floats() -> None:
    """Scales that are computed, 16 bits, weights a channel of the inputs: step by step, as before."""
    net = Net(2)
    x = net.input(2, 6, 9, 8)
    y = net.op("Conv", x, net.weight(4, 6, 1, 1, axis=1))
    wide = [net.constant(np.float32(0.001)), net.constant(np.int16(3))]
    y = net.rounded(net.op("Conv", net.rounded(y, wide), net.weight(3, 4, 1, 1)))
    built, feeds = net.model(y, opset=21), net.feeds()
    session = InferenceSession(built)
    assert not any(node.op_type.startswith("QConv") for node in session._graph.nodes)
    wanted = InferenceSession(built, quantized="exact").run(None, feeds)[0]
    np.testing.assert_array_equal(session.run(None, feeds)[0], wanted)


def test_a_word_that_is_none() -> None:
    with pytest.raises(ConvError, match="quantized must be"):
        InferenceSession(Net(0).model(), quantized="fast")


# ---- operators of the standard and of ONNX Runtime ------------------------------------------------------------------


def q_linear(domain: str, op_type: str, inputs: list[Any], kind: str, feeds: dict[str, np.ndarray], **more: Any) -> Any:
    """A model of one operator; inputs that are no names are constants."""
    value, constants, names = onnx.helper.make_tensor_value_info, {}, []
    for at, one in enumerate(inputs):
        names.append(one if isinstance(one, str) else f"c{at}")
        if not isinstance(one, str):
            constants[f"c{at}"] = np.asarray(one)
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = onnx.helper.make_graph(
        [make(op_type, names, ["y"], domain=domain, **more)], "one",
        [value(name, code, x.shape) for name, x in feeds.items()], [value("y", code, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9)


def contributed(kind: str) -> dict[str, tuple[list[Any], dict[str, Any], dict[str, np.ndarray]]]:
    """Inputs, attributes and what is fed, by operator."""
    rng = np.random.default_rng(5)

    def grid(scale: float) -> list[Any]:
        zero = rng.integers(100, 150) - (128 if kind == "int8" else 0)
        return [np.float32(scale * rng.uniform(1, 1.1)), np.array(zero, kind)]

    def some(*shape: int) -> np.ndarray:
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max + 1, shape).astype(kind)

    x, z = some(2, 6, 8, 8), some(2, 6, 8, 8)
    rows = some(3, 12)
    w, matrix = rng.integers(-127, 128, (4, 6, 3, 3)).astype(np.int8), rng.integers(-127, 128, (12, 5)).astype(np.int8)
    zeros = np.zeros(4, np.int8)
    return {
        "QLinearConv": (["x", *grid(0.02), w, np.float32([0.01, 0.02, 0.003, 0.01]), zeros, *grid(0.1),
                         rng.integers(-500, 500, 4).astype(np.int32)], {"pads": [1] * 4}, {"x": x}),
        "QLinearMatMul": (["x", *grid(0.02), matrix, np.float32(0.01), np.int8(0), *grid(0.1)], {}, {"x": rows}),
        "QLinearAdd": (["x", *grid(0.02), "z", *grid(0.05), *grid(0.04)], {}, {"x": x, "z": z}),
        "QLinearMul": (["x", *grid(0.02), "z", *grid(0.05), *grid(0.04)], {}, {"x": x, "z": z}),
        "QLinearSigmoid": (["x", *grid(0.05), *grid(1 / 256)], {}, {"x": x}),
        "QLinearLeakyRelu": (["x", *grid(0.05), *grid(0.04)], {"alpha": 0.2}, {"x": x}),
        "QLinearGlobalAveragePool": (["x", *grid(0.05), *grid(0.02)], {"channels_last": 0}, {"x": x}),
        "QLinearAveragePool": (["x", *grid(0.05), *grid(0.02)], {"kernel_shape": [2, 2], "strides": [2, 2]}, {"x": x}),
        "QLinearConcat": ([*grid(0.04), "x", *grid(0.05), "z", *grid(0.02)], {"axis": 1}, {"x": x, "z": z}),
        "QLinearSoftmax": (["x", *grid(0.05), np.float32(1 / 256), np.array(np.iinfo(kind).min, kind)],
                           {"axis": -1, "opset": 17}, {"x": rows}),
        "QGemm": (["x", *grid(0.02), matrix, np.float32(0.01), np.int8(0),
                   rng.integers(-500, 500, 5).astype(np.int32), *grid(0.1)], {"transB": 0}, {"x": rows}),
    }  # fmt: skip


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("op_type", contributed("int8"))
def test_operators_of_onnx_runtimes_quantiser(op_type: str, kind: str) -> None:
    """As ONNX Runtime, but for the integer beside where both round; and the same in every mode."""
    inputs, attributes, feeds = contributed(kind)[op_type]
    domain = "" if op_type in ("QLinearConv", "QLinearMatMul") else "com.microsoft"
    built = q_linear(domain, op_type, inputs, kind, feeds, **attributes)
    session = InferenceSession(built)
    found = session.run(None, feeds)[0]
    for other in (InferenceSession(built, quantized="exact"), InferenceSession(built, optimise=False)):
        exact = other.run(None, feeds)[0]
        assert exact.dtype == found.dtype == np.dtype(kind)
        assert np.abs(exact.astype(int) - found).max() <= ("Pool" in op_type or "Gemm" in op_type)
    ort = pytest.importorskip("onnxruntime")
    wanted = ort.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    off = np.abs(found.astype(int) - wanted)
    assert off.max() <= (0 if op_type in ("QLinearConv", "QLinearMatMul", "QGemm") else 1)
    assert np.count_nonzero(off) <= 0.02 * off.size


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("floats", [False, True])
def test_a_factor_of_a_qgemm_is_its_biass_too(floats: bool, kind: str) -> None:
    """The steps of the bias are the product of both scales and alpha."""
    rng = np.random.default_rng(2)
    inputs, attributes, feeds = contributed(kind)["QGemm"]
    bias = rng.integers(-60_000, 60_000, 5).astype(np.int32)
    inputs = [*inputs[:6], bias, *([] if floats else [np.float32(0.4), inputs[8]])]
    for alpha in (0.25, 3.0):
        built = q_linear("com.microsoft", "QGemm", inputs, kind, feeds, **attributes, alpha=alpha)
        if floats:
            built.graph.output[0].type.tensor_type.elem_type = 1
        x, w = (part.astype(np.float64) for part in (feeds["x"], inputs[3]))
        sums = (x - inputs[2]) @ (w - inputs[5]) + bias
        wanted = alpha * float(inputs[1]) * float(inputs[4]) * sums
        if not floats:
            limits = np.iinfo(kind)
            wanted = np.clip(np.rint(wanted / 0.4) + inputs[-1], limits.min, limits.max)
        for session in (InferenceSession(built), InferenceSession(built, quantized="exact")):
            assert np.abs(session.run(None, feeds)[0] - wanted).max() <= (1e-3 if floats else 1)
        if importlib.util.find_spec("onnxruntime"):
            ort = importlib.import_module("onnxruntime")
            peer = ort.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])
            assert np.abs(peer.run(None, feeds)[0] - wanted).max() <= (1e-3 if floats else 1)


def test_an_operator_of_onnx_runtime_that_there_is_not() -> None:
    from fastconv.onnx import UnsupportedOperator

    inputs, attributes, feeds = contributed("uint8")["QLinearAveragePool"]
    built = q_linear(
        "com.microsoft", "QLinearAveragePool", inputs, "uint8", feeds, **{**attributes, "channels_last": 1}
    )
    with pytest.raises(UnsupportedOperator, match="QLinearAveragePool"):
        InferenceSession(built)


# ---- whole nets -----------------------------------------------------------------------------------------------------


def float_net() -> Any:
    """A small net with what nets are made of, in floats."""
    rng, nodes, constants = np.random.default_rng(3), [], {}

    def conv(x: str, y: str, o: int, i: int, k: int, g: int = 1, s: int = 1) -> None:
        constants[f"{y}_w"] = (rng.standard_normal((o, i // g, k, k)) / (i // g * k * k) ** 0.5).astype(np.float32)
        constants[f"{y}_b"] = (rng.standard_normal(o) * 0.1).astype(np.float32)
        pads = [k // 2] * 4
        nodes.append(make("Conv", [x, f"{y}_w", f"{y}_b"], [y], pads=pads, strides=[s, s], group=g, name=y))

    def op(kind: str, inputs: list[str], y: str, **attributes: Any) -> None:
        nodes.append(make(kind, inputs, [y], name=y, **attributes))

    conv("x", "a", 16, 3, 3, s=2)
    op("Relu", ["a"], "a1")
    op("MaxPool", ["a1"], "a2", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    conv("a2", "d", 16, 16, 3, g=16)
    op("Sigmoid", ["d"], "d1")
    op("Mul", ["d", "d1"], "d2")
    conv("d2", "e", 16, 16, 1)
    op("Add", ["e", "a2"], "e1")
    op("Relu", ["e1"], "e2")
    op("AveragePool", ["e2"], "p", kernel_shape=[2, 2], strides=[2, 2])
    constants["scales"] = np.array([1, 1, 2, 2], np.float32)
    op("Resize", ["p", "", "scales"], "r", mode="nearest", nearest_mode="floor",
       coordinate_transformation_mode="asymmetric")  # fmt: skip
    op("Concat", ["r", "e2"], "c", axis=1)
    conv("c", "f", 24, 32, 3)
    op("HardSwish", ["f"], "f1")
    op("GlobalAveragePool", ["f1"], "g")
    op("Flatten", ["g"], "h")
    constants["W"], constants["B"] = (rng.standard_normal(n).astype(np.float32) for n in ((10, 24), 10))
    op("Gemm", ["h", "W", "B"], "y", transB=1)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "net", [value("x", 1, ["n", 3, 32, 32])], [value("y", 1, ["n", 10])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_what_onnx_runtime_quantises(form: str, per_channel: bool, activations: str, tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    quantization = pytest.importorskip("onnxruntime.quantization")
    rng = np.random.default_rng(4)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left = iter([{"x": rng.standard_normal((2, 3, 32, 32)).astype(np.float32)} for _ in range(3)])

        def get_next(self) -> Any:
            return next(self.left, None)

    made, target = tmp_path / "float.onnx", tmp_path / "bytes.onnx"
    onnx.save(float_net(), made)
    quantization.quantize_static(
        str(made), str(target), Reader(), quant_format=getattr(quantization.QuantFormat, form), per_channel=per_channel,
        activation_type=getattr(quantization.QuantType, activations), weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    x = rng.standard_normal((3, 3, 32, 32)).astype(np.float32)
    session = InferenceSession(target)
    done = [node.op_type for node in session._graph.nodes]
    assert done.count("QConv") == 4 and "QDense" in done and not {"Conv", "Dense", "MatMul"} & set(done)
    if form == "QDQ":
        assert [one for one in done if one[0] != "Q"] == [
            "MaxPool", "Resize", "Concat", "Flatten", "DequantizeLinear"
        ]  # fmt: skip
    found = [session.run(None, {"x": x})[0] for _ in range(3)]
    assert np.array_equal(found[0], found[2])
    exact = InferenceSession(target, quantized="exact").run(None, {"x": x})[0]
    peer = ort.InferenceSession(str(target), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    step = np.min(np.diff(np.unique(exact)))
    assert np.abs(found[0] - exact).max() <= 2.01 * step and np.abs(found[0] - peer).max() <= 3.01 * step
