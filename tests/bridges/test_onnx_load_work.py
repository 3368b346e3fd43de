"""What loading a graph and its first run cost: lines of Python, which grow with the nodes and not with their square."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")

from onnx_models import LARGE, large_graph, load_and_run, model, steps_of_python  # noqa: E402

from fastconv.onnx import InferenceSession  # noqa: E402

make = onnx.helper.make_node
FEW, MANY = 40, 320
MOST = 1.25  # of eight times the work for eight times the nodes


@pytest.mark.parametrize("kind", LARGE)
def test_work_grows_with_the_nodes(kind):
    """Chains, fans, many constants, and what every rewriting is about."""
    counts = []
    for size in (FEW, MANY):
        built, feeds = large_graph(onnx, kind, size)
        data = built.SerializeToString()
        if size == FEW:
            load_and_run(data, feeds)  # what is made once
        counts.append(steps_of_python(partial(load_and_run, data, feeds)))
    assert counts[1] <= MOST * MANY / FEW * counts[0], counts


@pytest.mark.parametrize("kind", ["relu", "identity", "add", "quantised moves"])
def test_deep_graphs_do_not_recurse(kind):
    """More nodes behind each other than Python's stack has frames."""
    built, feeds = large_graph(onnx, kind, 3 * sys.getrecursionlimit())
    assert load_and_run(built.SerializeToString(), feeds).run(None, feeds)[0].shape == (1, 4, 3, 3)


def test_weights_that_a_rewriting_replaced_are_let_go():
    """A convolution that takes over many factors keeps one weight, not one for each."""
    count = 40
    nodes = [make("Conv", ["x", "w"], ["v0"])]
    nodes += [make("Mul", [f"v{i}", "c"], [f"v{i + 1}"]) for i in range(count)]
    constants = {"w": np.ones((4, 4, 1, 1), np.float32), "c": np.full((4, 1, 1), 1.5, np.float32)}
    session = InferenceSession(model(onnx, nodes, {"x": [1, 4, 3, 3]}, {f"v{count}": None}, constants))
    assert len(session._graph.nodes) == 1 and len(session._graph.constants) == 2
    (y,) = session.run(None, {"x": np.ones((1, 4, 3, 3), np.float32)})
    np.testing.assert_allclose(y, 4 * 1.5**count, rtol=1e-5)


@pytest.mark.parametrize("last", ["x", "a"])
def test_names_that_pass_through(last):
    """Identities in rows, to outputs and back to the input, keep every name that is asked for."""
    nodes = [make("Relu", ["x"], ["a"])] if last == "a" else []
    nodes += [make("Identity", [last], ["b"]), make("Identity", ["b"], ["y"]), make("Identity", ["y"], ["c"]),
              make("Identity", ["c"], ["z"]), make("Neg", ["b"], ["n"]), make("Neg", ["c"], ["m"])]  # fmt: skip
    session = InferenceSession(model(onnx, nodes, {"x": [2]}, dict.fromkeys(["y", "z", "n", "m"])))
    x = np.array([1, 2], np.float32)
    for got, sign in zip(session.run(None, {"x": x}), (1, 1, -1, -1), strict=True):
        assert np.array_equal(got, sign * x)


def test_equal_dequantisations_merge_behind_what_moves():
    """Two readers each of two moved values: one DequantizeLinear at the quantised value serves all four."""
    constants = {"s": np.float32(0.5), "t": np.float32(0.25), "z": np.uint8(3)}
    nodes = [make("QuantizeLinear", ["x", "s", "z"], ["q"])]
    for side in "ab":
        nodes.append(make("Transpose", ["q"], [f"{side}q"], perm=[1, 0]))
        nodes += [make("DequantizeLinear", [f"{side}q", "s", "z"], [f"{side}{i}"]) for i in range(2)]
    nodes += [make("Sum", ["a0", "a1", "b0", "b1"], ["y"]), make("DequantizeLinear", ["q", "t", "z"], ["other"])]
    built = model(onnx, nodes, {"x": [2, 3]}, {"y": None, "other": None}, constants)
    session, plain = InferenceSession(built), InferenceSession(built, optimise=False)
    x = np.arange(-2, 4, dtype=np.float32).reshape(2, 3)
    for ours, theirs in zip(session.run(None, {"x": x}), plain.run(None, {"x": x}), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    operators = [node.op_type for node in session._graph.nodes]
    assert operators.count("DequantizeLinear") == 2


@pytest.mark.parametrize("op_type", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("twice", [False, True])
def test_a_normalisation_changes_weights_where_they_lie_if_nobody_else_reads_them(op_type, twice, tmp_path):
    """Of a file; the bytes and the model that a caller gives stay as they are."""
    rng = np.random.default_rng(0)
    constants = {"w": rng.standard_normal((32, 32, 3, 3)).astype(np.float32)}
    constants.update((name, rng.uniform(0.5, 2, 32).astype(np.float32)) for name in ("scale", "bias", "mean", "var"))
    nodes = [make(op_type, ["x", "w"], ["v"]), make("BatchNormalization", ["v", "scale", "bias", "mean", "var"], ["y"])]
    outputs = {"y": None}
    if twice:
        nodes.append(make(op_type, ["x", "w"], ["z"]))
        outputs["z"] = None
    built = model(onnx, nodes, {"x": [1, 32, 6, 6]}, outputs, constants)
    data = built.SerializeToString()
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    before = bytes(bytearray(data))
    feeds = {"x": rng.standard_normal((1, 32, 6, 6)).astype(np.float32)}
    plain = InferenceSession(path, optimise=False).run(None, feeds)
    sessions = [InferenceSession(source) for source in (path, data, built)]
    results = [session.run(None, feeds) for session in sessions]
    for found in results:
        for one, other, right in zip(found, results[0], plain, strict=True):
            assert np.array_equal(one, other)
            np.testing.assert_allclose(one, right, rtol=1e-4, atol=1e-4)
    assert data == before and built.SerializeToString() == before and path.read_bytes() == before
    (weight,) = {node.inputs[1] for node in sessions[0]._graph.nodes if "BatchNormalization" in node.parts}
    array, copied = (session._graph.constants[weight] for session in sessions[:2])
    assert np.array_equal(array, copied)
    while isinstance(array, np.ndarray):  # down to what was read, or to memory of its own
        array = array.base
    assert isinstance(array, memoryview) is not twice
