"""Functions that exporters spell out in small operators: found, one node each, and what the plain operators give."""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx.reference import ReferenceEvaluator  # noqa: E402
from onnx_models import model  # noqa: E402

from fastconv.graph.graph import Node  # noqa: E402
from fastconv.graph.memory import Pool  # noqa: E402
from fastconv.graph.operators import INTERNAL, Call, rows  # noqa: E402
from fastconv.graph.operators.normalization import standardised  # noqa: E402
from fastconv.onnx import InferenceSession  # noqa: E402

make = onnx.helper.make_node
NUMBERS = {
    "half": 0.5, "one": 1.0, "two": 2.0, "three": 3.0, "root": sqrt(2), "inverse": sqrt(0.5), "cubic": 0.044715,
    "factor": sqrt(2 / pi), "eps": 1e-5,
}  # fmt: skip
LAST = {"last": np.array([-1]), "channels": np.array([1]), "pixels": np.array([2, 3])}


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def found(nodes: list[Any], shape: tuple[int, ...], constants: dict[str, Any] | None = None) -> list[str]:
    """The operators that are left of x -> y, which must give what the reference evaluator does."""
    numbers = {name: np.float32(value) for name, value in NUMBERS.items()}
    given = {**numbers, **LAST, **(constants or {})}
    read = {name for node in nodes for name in node.input}
    built = model(onnx, nodes, {"x": list(shape)}, {"y": None}, {k: v for k, v in given.items() if k in read}, 18)
    x = 2 * draw(*shape) + 0.5
    session = InferenceSession(built)
    (got,) = session.run(None, {"x": x})
    (expected,) = ReferenceEvaluator(built).run(None, {"x": x})
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)
    left = []
    for node in session._graph.nodes:
        chain = node.attributes.get("chain")
        left += [link.node.op_type for link in chain] if chain else [node.op_type]
    return left


def gelus() -> dict[str, list[Any]]:
    inner = [make("Div", ["x", "root"], ["a"]), make("Erf", ["a"], ["b"]), make("Add", ["b", "one"], ["c"])]
    other = [make("Mul", ["inverse", "x"], ["a"]), make("Erf", ["a"], ["b"]), make("Add", ["one", "b"], ["c"])]
    cube = [make("Pow", ["x", "three"], ["p"]), make("Mul", ["cubic", "p"], ["q"])]
    cubes = [make("Mul", ["x", "x"], ["o"]), make("Mul", ["o", "x"], ["p"]), make("Mul", ["p", "cubic"], ["q"])]
    sums = [make("Add", ["x", "q"], ["r"]), make("Mul", ["r", "factor"], ["a"])]
    square = [
        make("Pow", ["x", "two"], ["p"]), make("Mul", ["p", "cubic"], ["q"]), make("Add", ["q", "one"], ["r"]),
        make("Mul", ["x", "factor"], ["s"]), make("Mul", ["s", "r"], ["a"]),
    ]  # fmt: skip
    tanh = [make("Tanh", ["a"], ["b"]), make("Add", ["b", "one"], ["c"])]
    end = [make("Mul", ["x", "c"], ["d"]), make("Mul", ["d", "half"], ["y"])]
    return {
        "torch": [*inner, *end],
        "half first": [*other, make("Mul", ["x", "half"], ["d"]), make("Mul", ["d", "c"], ["y"])],
        "half inside": [*inner, make("Mul", ["half", "c"], ["d"]), make("Mul", ["x", "d"], ["y"])],
        "halved": [*other, make("Mul", ["c", "x"], ["d"]), make("Div", ["d", "two"], ["y"])],
        "tanh": [*cube, *sums, *tanh, *end],
        "tanh of products": [*cubes, *sums, *tanh, *end],
        "tanh of a square": [*square, *tanh, make("Mul", ["x", "half"], ["d"]), make("Mul", ["d", "c"], ["y"])],
    }


@pytest.mark.parametrize("name", gelus())
def test_gelu(name):
    assert found(gelus()[name], (2, 3, 5, 7)) == ["Gelu"]


@pytest.mark.parametrize("name", ["torch", "tanh"])
def test_gelu_goes_into_the_product_before(name):
    nodes = [make("MatMul", ["input", "w"], ["z"]), make("Add", ["z", "bias"], ["x"]), *gelus()[name]]
    renamed = [make("Identity", ["x"], ["input"]), *nodes]
    for node in renamed[1:]:
        for names in (node.input, node.output):
            for at, one in enumerate(names):
                if one == "x":
                    names[at] = "inside"
    assert found(renamed, (2, 5, 8), {"w": draw(8, 6), "bias": draw(6)}) == ["Dense"]


@pytest.mark.parametrize("wrong", ["half", "root", "one"])
def test_what_only_looks_like_gelu(wrong):
    nodes = gelus()["torch"]
    for node in nodes:
        for at, name in enumerate(node.input):
            node.input[at] = "three" if name == wrong else name
    assert "Gelu" not in found(nodes, (2, 8))
    kept = [*gelus()["torch"][:-1], make("Mul", ["d", "half"], ["e"]), make("Add", ["e", "c"], ["y"])]
    assert "Gelu" not in found(kept, (2, 8))


def normalisation(axes: str, square: str, twice: bool, end: str) -> list[Any]:
    apart = "d2" if twice else "d"
    nodes = [make("ReduceMean", ["x", axes], ["m"]), make("Sub", ["x", "m"], ["d"])]
    nodes += [make("Sub", ["x", "m"], ["d2"])] if twice else []
    nodes += [make("Pow", [apart, "two"], ["s"]) if square == "Pow" else make("Mul", [apart, apart], ["s"])]
    nodes += [make("ReduceMean", ["s", axes], ["v"]), make("Add", ["v", "eps"], ["e"])]
    if end == "Div":
        return [*nodes, make("Sqrt", ["e"], ["r"]), make("Div", ["d", "r"], ["n"])]
    return [*nodes, make("Sqrt", ["e"], ["r"]), make("Reciprocal", ["r"], ["i"]), make("Mul", ["d", "i"], ["n"])]


@pytest.mark.parametrize("square", ["Pow", "Mul"])
@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("end", ["Div", "Reciprocal"])
@pytest.mark.parametrize("axes, shape, scale", [
    ("last", (3, 5, 70), (70,)), ("channels", (2, 6, 5, 4), (6, 1, 1)), ("pixels", (2, 6, 5, 4), (1, 6, 1, 1)),
    ("pixels", (2, 6, 5, 4), (5, 4)), ("channels", (2, 6, 5, 4), (5, 4)),
])  # fmt: skip
def test_normalisations(axes, shape, scale, square, twice, end):
    nodes = normalisation(axes, square, twice, end)
    nodes += [make("Mul", ["n", "w"], ["o"]), make("Add", ["bias", "o"], ["y"])]
    assert found(nodes, shape, {"w": draw(*scale), "bias": draw(*scale)}) == ["Standardised"]


def test_a_normalisation_channels_last():
    """Behind a convolution, whose result lies channels last, over channels, over pixels and over groups."""
    for axes, scale in (("channels", (8, 1, 1)), ("pixels", (8, 1, 1))):
        nodes = [make("Conv", ["input", "k"], ["x"]), *normalisation(axes, "Pow", False, "Div")]
        nodes = [make("Identity", ["x"], ["input"]), *nodes, make("Mul", ["n", "w"], ["o"]),
                 make("Add", ["bias", "o"], ["y"])]  # fmt: skip
        for node in nodes[1:]:
            for names in (node.input, node.output):
                for at, one in enumerate(names):
                    names[at] = "inside" if one == "x" else one
        constants = {"k": draw(8, 3, 1, 1), "w": draw(*scale), "bias": draw(*scale)}
        assert found(nodes, (2, 3, 40, 30), constants) == ["Conv", "Standardised"]


@pytest.mark.parametrize("channels", [64, 70, 130])
@pytest.mark.parametrize("scale_alone", [False, True])
def test_a_scale_that_repeats_is_not_written_out(channels, scale_alone, monkeypatch):
    """A value a channel, of all pixels and channels of an image that lies channels last: with the bits of one written
    out, whose memory is that of the image."""
    rng = np.random.default_rng(channels)
    scale, shift = (rng.standard_normal((channels, 1)).astype(np.float32) for _ in range(2))
    x = rng.standard_normal((2, 300, channels)).astype(np.float32).transpose(0, 2, 1)
    node = Node("Standardised", ["x", "w", "" if scale_alone else "b"], ["y"], {"axes": [1, 2], "epsilon": 1e-5,
                "centre": True}, 1, INTERNAL)  # fmt: skip
    results, held = [], []
    for least in (rows.LEAST_PERIOD, 1 << 40):
        monkeypatch.setattr(rows, "LEAST_PERIOD", least)
        call = Call(node, Pool(), 2, ["w", "b"])
        inputs = [x, scale, None if scale_alone else shift]
        call.begin(inputs)
        results.append(np.array(standardised(call, *inputs)))
        held.append(max(array.size for array in call.state.values()))
    assert np.array_equal(*results) and held == [channels, 300 * channels]
    wide = x.astype(np.float64)
    centred = wide - wide.mean((1, 2), keepdims=True)
    right = centred / np.sqrt(np.square(centred).mean((1, 2), keepdims=True) + 1e-5) * scale
    np.testing.assert_allclose(results[0], right + (0 if scale_alone else shift), rtol=1e-5, atol=1e-5)


def test_the_root_of_the_mean_square():
    nodes = [
        make("Pow", ["x", "two"], ["s"]), make("ReduceMean", ["s", "last"], ["v"]), make("Add", ["v", "eps"], ["e"]),
        make("Sqrt", ["e"], ["r"]),
    ]  # fmt: skip
    for end in ([make("Div", ["x", "r"], ["n"])], [make("Div", ["one", "r"], ["i"]), make("Mul", ["x", "i"], ["n"])]):
        assert found([*nodes, *end, make("Mul", ["w", "n"], ["y"])], (3, 4, 50), {"w": draw(50)}) == ["Standardised"]


@pytest.mark.parametrize("constant", [False, True])
def test_groups_as_pytorch_writes_them(constant):
    constants = {
        "sizes": np.array([0, 4, -1]), "ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32),
        "w": draw(12, 1, 1), "bias": draw(12, 1, 1), "back": np.array([2, 12, 5, 6]),
    }  # fmt: skip
    nodes = [
        make("Reshape", ["x", "sizes"], ["a"]), make("InstanceNormalization", ["a", "ones", "zeros"], ["b"]),
        make("Reshape", ["b", "back"], ["c"]), make("Mul", ["c", "w"], ["d"]), make("Add", ["d", "bias"], ["y"]),
    ]  # fmt: skip
    if not constant:
        nodes.insert(0, make("Shape", ["x"], ["back"]))
        del constants["back"]
    assert found(nodes, (2, 12, 5, 6), constants) == ["Grouped"]
    if constant:  # another shape than that of x
        other = {**constants, "back": np.array([2, 6, 10, 6]), "w": draw(6, 1, 1), "bias": draw(6, 1, 1)}
        assert found(nodes, (2, 12, 5, 6), other) == ["Grouped"]


def test_softmax_and_mish():
    nodes = [make("ReduceMax", ["x", "channels"], ["m"]), make("Sub", ["x", "m"], ["a"]), make("Exp", ["a"], ["b"]),
             make("ReduceSum", ["b", "channels"], ["s"]), make("Div", ["b", "s"], ["y"])]  # fmt: skip
    assert found(nodes, (2, 5, 6, 7)) == ["Softmax"]
    nodes = [make("Softplus", ["x"], ["a"]), make("Tanh", ["a"], ["b"]), make("Mul", ["x", "b"], ["y"])]
    assert found(nodes, (2, 5, 6, 7)) == ["Mish"]


@pytest.mark.parametrize("second", [6, 10])  # of another length: the halves are not what was joined
@pytest.mark.parametrize("batch", [2, -1])
@pytest.mark.parametrize("last", [True, False])  # in memory
def test_joined_channels_in_turns(second: int, batch: int, last: bool) -> None:
    half = (6 + second) // 2
    numbers = {
        "w": draw(second, 6, 1, 1), "grouped": np.array([batch, 2, half, 5, 4]),
        "whole": np.array([batch, 2 * half, 5, 4]),
    }  # fmt: skip
    joined = [
        make("Conv", ["x", "w"], ["b"]), make("Relu", ["x"], ["a"]), make("Concat", ["a", "b"], ["c"], axis=1),
        make("Reshape", ["c", "grouped"], ["d"]), make("Transpose", ["d"], ["e"], perm=[0, 2, 1, 3, 4]),
        make("Reshape", ["e", "whole"], ["f"]), make("Neg", ["f"], ["y"]),
    ]  # fmt: skip
    built = model(onnx, joined, {"x": [2, 6, 5, 4]}, {"y": None}, numbers, 18)
    session, reference = InferenceSession(built), ReferenceEvaluator(built)
    assert "Interleave" in [node.op_type for node in session._graph.nodes]
    for run in range(4):  # the third is the second's works
        x = draw(2, 6, 5, 4) + run
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if last else x
        (got,), (expected,) = session.run(None, {"x": x}), reference.run(None, {"x": x})
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-5)


def test_three_groups_are_left_as_they_are() -> None:
    numbers = {"grouped": np.array([2, 3, 4, 5, 4]), "whole": np.array([2, 12, 5, 4])}
    nodes = [
        make("Concat", ["x", "x"], ["c"], axis=1), make("Reshape", ["c", "grouped"], ["d"]),
        make("Transpose", ["d"], ["e"], perm=[0, 2, 1, 3, 4]), make("Reshape", ["e", "whole"], ["y"]),
    ]  # fmt: skip
    assert "Interleave" not in found(nodes, (2, 6, 5, 4), numbers)
