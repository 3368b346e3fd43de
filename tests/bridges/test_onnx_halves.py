"""float16 and bfloat16 in ONNX models: what every operator gives is its float32 result, rounded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx: pip install fastconv[onnx]")
ml_dtypes = pytest.importorskip("ml_dtypes", reason="onnx brings ml_dtypes")

from onnx import helper  # noqa: E402

from fastconv.graph.graph import Node  # noqa: E402
from fastconv.graph.memory import Pool  # noqa: E402
from fastconv.graph.operators import Call, find, names  # noqa: E402
from fastconv.graph.program import run_node  # noqa: E402
from fastconv.onnx import InferenceSession  # noqa: E402

HALVES = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
LATEST = 28
rng = np.random.default_rng(0)


def image(*shape: int, most: float = 512.0) -> Any:
    """Numbers up to `most` whose squares and sums are beyond float16, all of them numbers of either type."""
    return (rng.integers(-128, 129, shape or (2, 4, 16, 16)) * (most / 128)).astype(np.float32)


def positive(*shape: int) -> Any:
    return np.abs(image(*shape)) + 1


def integers(*values: int) -> Any:
    return np.array(values, np.int64)


X, CHANNELS = image(), 1 + np.arange(4, dtype=np.float32) / 4
POOL = {"kernel_shape": [7, 7], "pads": [1, 2, 3, 2], "strides": [2, 3]}
# Operator: (inputs, of which float32 ones become 16-bit floats, attributes[, operator set]).
CASES: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("Acos", "Asin", "Atanh"), ([X / 1024], {})),
    **dict.fromkeys(("Acosh", "Log", "Sqrt", "Reciprocal"), ([positive()], {})),
    **dict.fromkeys(("Exp", "Cosh", "Sinh", "Tan", "Gelu", "Erf", "Mish", "Softplus", "Elu"), ([X / 64], {})),
    **dict.fromkeys(("Add", "Sub", "Mul", "Mean", "Sum", "Max", "Min"), ([X, X[:, :, ::-1]], {})),
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), ([X, X[:, :, ::-1]], {})),
    **dict.fromkeys(("Div", "Mod"), ([X, positive()], {"fmod": 0})),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceMax", "ReduceMin"),
                    ([X, integers(0, 2, 3)], {})),
    **dict.fromkeys(("ReduceLogSum", "ReduceProd"), ([positive() / 512, integers(1, 3)], {})),
    "ReduceLogSumExp": ([X / 64, integers(1)], {}),
    **dict.fromkeys(("ArgMax", "ArgMin"), ([X], {"axis": 1})),
    **dict.fromkeys(("AveragePool", "MaxPool"), ([X], POOL)),
    "LpPool": ([X], {**POOL, "p": 2}),
    "GlobalLpPool": ([X], {"p": 2}),
    "MaxUnpool": ([X[:, :, :2, :2], np.arange(32).reshape(2, 4, 2, 2) * 4],
                  {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "BatchNormalization": ([X, CHANNELS, CHANNELS, CHANNELS * 100, CHANNELS * 500], {}),
    "InstanceNormalization": ([X, CHANNELS, CHANNELS], {}),
    "GroupNormalization": ([X, CHANNELS, CHANNELS], {"num_groups": 2}),
    "LayerNormalization": ([X, image(16), image(16)], {}),
    "RMSNormalization": ([X, image(16)], {}),
    "LRN": ([X], {"size": 3, "alpha": 0.1}),
    "Conv": ([X, image(3, 4, 3, 3) / 512, image(3)], {"pads": [1, 1, 1, 1]}),
    "ConvTranspose": ([X, image(4, 3, 3, 3) / 512, image(3)], {"strides": [2, 2]}),
    "MatMul": ([image(3, 700) / 16, image(700, 5) / 16], {}),
    "Gemm": ([image(3, 700) / 16, image(700, 5) / 16, image(5)], {"alpha": 0.3, "beta": 0.7}),
    "Einsum": ([image(3, 700) / 16, image(700, 5) / 16], {"equation": "ij,jk->ki"}),
    **dict.fromkeys(("CumSum", "CumProd"), ([np.ones(5000, np.float32), integers(0).reshape(())], {})),
    "Pow": ([positive(), np.float32(1.25) * np.ones((1, 1, 1, 16), np.float32)], {}),
    "PRelu": ([X, image(4, 1, 1)], {}),
    "Clip": ([X, np.array(-100, np.float32), np.array(100, np.float32)], {}),
    "OneHot": ([integers(0, 2), integers(3), np.array([-5, 7], np.float32)], {}),
    "Range": ([np.array(v, np.float32) for v in (0, 500, 3)], {}),
    "Resize": ([X, None, np.array([1, 1, 1.3, 0.7], np.float32)], {"mode": "cubic"}),
    "Upsample": ([X, np.array([1, 1, 1.5, 2], np.float32)], {"mode": "linear"}, 9),
    "Scatter": ([X, np.zeros((1, 4, 1, 1), np.int64), image(1, 4, 1, 1)], {}, 10),
    "ScatterElements": ([image(4), np.zeros(900, np.int64), image(900)], {"reduction": "add"}),
    "ScatterND": ([image(4), np.zeros((900, 1), np.int64), image(900)], {"reduction": "add"}),
    "TopK": ([X, integers(5)], {}),
    "NonZero": ([X[0, 0]], {}),
    "Pad": ([X, integers(0, 0, 1, 2, 0, 0, 3, -4), np.array(3, np.float32)], {}),
    "CenterCropPad": ([X, integers(2, 4, 9, 20)], {}),
    "Compress": ([X, np.array([True, False, True])], {"axis": 2}),
    "Concat": ([X, X], {"axis": 1}),
    "DepthToSpace": ([X], {"blocksize": 2}),
    "SpaceToDepth": ([X], {"blocksize": 2}),
    "Expand": ([X, integers(2, 4, 16, 16)], {}),
    "Gather": ([X, integers(1, 0)], {"axis": 1}),
    "GatherElements": ([X, np.zeros((1, 1, 1, 1), np.int64)], {}),
    "GatherND": ([X, integers(1, 2)], {}),
    "Reshape": ([X, integers(8, -1)], {}),
    "ReverseSequence": ([X[0, 0], integers(*[3] * 16)], {}),
    "Slice": ([X, integers(1), integers(9), integers(2)], {}),
    "Split": ([X], {"axis": 1, "num_outputs": 2}),
    "Squeeze": ([X[:, :1], integers(1)], {}),
    "Unsqueeze": ([X, integers(1)], {}),
    "Tile": ([X, integers(1, 2, 1, 1)], {}),
    "Trilu": ([X], {}),
    "Where": ([X > 0, X, image()], {}),
    "EyeLike": ([X[0, 0]], {}),
    "CastLike": ([X, CHANNELS], {}),
    "AffineGrid": ([image(2, 2, 3) / 512, integers(2, 3, 5, 4)], {}),
    "Attention": ([image(2, 3, 5, 4) / 64, image(2, 3, 6, 4) / 64, image(2, 3, 6, 4)], {}),
    "CausalConvWithState": ([image(2, 4, 9), image(4, 1, 3) / 512], {"activation": "silu"}),
    "Col2Im": ([image(2, 8, 9), integers(4, 4), integers(2, 2)], {}),
    "DFT": ([image(2, 9, 1) / 16], {"onesided": 1}),
    "DeformConv": ([X, image(3, 4, 2, 2) / 512, image(2, 8, 15, 15) / 512], {}),
    "Det": ([image(4, 3, 3) / 64], {}),
    "GridSample": ([X, image(2, 3, 5, 2) / 512], {"mode": "cubic"}),
    **{name: ([image(5, 2, 4) / 512, image(1, gates * 3, 4) / 512, image(1, gates * 3, 3) / 512], {"hidden_size": 3})
       for name, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))},
    "MaxRoiPool": ([X, np.array([[1, 2, 3, 9, 12]], np.float32)], {"pooled_shape": [2, 3]}),
    "RoiAlign": ([X, np.array([[2, 3, 9, 12]], np.float32), integers(1)], {"output_height": 3, "sampling_ratio": 2}),
    "RotaryEmbedding": ([X, image(2, 16, 8) / 512, image(2, 16, 8) / 512], {}),
    "STFT": ([image(2, 20, 1) / 16, integers(3), image(8) / 512], {}),
    "SwiGLU": ([X / 64, X[:, :, ::-1]], {}),
    "TensorScatter": ([image(2, 5, 4), image(2, 2, 4)], {}),
    "IsInf": ([np.where(X > 400, np.float32(np.inf), X)], {}),
}  # fmt: skip
# What is about types: bits, scales, integers, which no float32 result says; and what has tests of its own: graphs,
# sequences, random numbers.
OTHERS = {
    "BitCast", "Cast", "Constant", "ConstantOfShape", "DequantizeLinear", "MelWeightMatrix", "QLinearMatMul",
    "QuantizeLinear", "If", "Loop", "Optional", "OptionalGetElement", "OptionalHasElement", "RandomNormalLike",
    "RandomUniformLike", "Scan", "SequenceConstruct", "SequenceInsert", "SequenceMap", "SplitToSequence",
}  # fmt: skip


def takes_halves(name: str) -> bool:
    schema = onnx.defs.get_schema(name, LATEST, "")
    kinds = {about.type_param_str: about.allowed_type_strs for about in schema.type_constraints}
    return any("tensor(float16)" in kinds.get(formal.type_str, ()) for formal in schema.inputs)


def case(name: str) -> tuple[list[Any], dict[str, Any], int]:
    inputs, attributes, *version = CASES.get(name, ([X], {}))
    known = onnx.defs.get_schema(name, LATEST, "").attributes
    return inputs, {key: value for key, value in attributes.items() if key in known}, *(version or [LATEST])


def built(name: str, inputs: list[Any], attributes: dict[str, Any], version: int) -> tuple[Any, dict[str, Any]]:
    """A model of one node with its arrays fed."""
    feeds = {f"i{at}": array for at, array in enumerate(inputs) if array is not None}
    count = 2 if name in ("CausalConvWithState", "MaxPool", "Split", "TopK") else 1
    node = helper.make_node(
        name, [f"i{at}" if array is not None else "" for at, array in enumerate(inputs)],
        [f"o{at}" for at in range(count)], **attributes,
    )  # fmt: skip
    kind = helper.np_dtype_to_tensor_dtype
    graph = helper.make_graph(
        [node], "one", [helper.make_tensor_value_info(key, kind(a.dtype), a.shape) for key, a in feeds.items()],
        [helper.make_tensor_value_info(output, 0, None) for output in node.output],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)]), feeds


def narrow(arrays: list[Any], kind: np.dtype[Any]) -> list[Any]:
    return [array.astype(kind) if array is not None and array.dtype == np.float32 else array for array in arrays]


def same(got: Any, wanted: Any, kind: np.dtype[Any]) -> None:
    """The float32 result, rounded once: bit for bit, but for the sign of NaN."""
    wanted = wanted.astype(kind) if wanted.dtype == np.float32 else wanted
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    if wanted.dtype == kind:
        got, wanted = got.astype(np.float32), wanted.astype(np.float32)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", [name for name in names() if takes_halves(name) and name not in OTHERS])
def test_every_operator_is_float32_rounded_once(name, half):
    kind = HALVES[half]
    inputs, attributes, version = case(name)
    keeps_float32 = {"Resize": (2,), "Upsample": (1,)}.get(name, ())  # scales
    stored = [a if at in keeps_float32 else narrow([a], kind)[0] for at, a in enumerate(inputs)]
    inputs = [a if a is None or a.dtype != kind else a.astype(np.float32) for a in stored]
    with np.errstate(all="ignore"):
        wide, given = built(name, inputs, attributes, version)
        model, feeds = built(name, stored, attributes, version)
        for optimise in (True, False):
            wanted = InferenceSession(wide, optimise=optimise).run(None, given)
            for got, array in zip(InferenceSession(model, optimise=optimise).run(None, feeds), wanted, strict=True):
                same(got, array, kind)
        # The operator by itself, as it runs where a graph does not tell its types.
        proto = model.graph.node[0]
        found = find("", name, version)
        assert found is not None
        values = {key: helper.get_attribute_value(a) for a in proto.attribute for key in [a.name]}
        values = {key: value.decode() if isinstance(value, bytes) else value for key, value in values.items()}
        node = Node(name, list(proto.input), list(proto.output), values, version)
        for got, array in zip(run_node(found.function, Call(node, Pool(), 1), stored), wanted, strict=False):
            same(got, array, kind)


def test_the_cases_reach_beyond_float16():
    """Computed in float16, most of these would be infinite or stop growing."""
    with np.errstate(over="ignore"):
        assert np.isinf(np.square(X.astype(np.float16))).any()
    assert np.cumsum(np.ones(5000, np.float16), dtype=np.float16)[-1] == 2048


# ---- against float64 -------------------------------------------------------------------------------------------------


def normal(x: Any, axes: tuple[int, ...], epsilon: float = 1e-5) -> Any:
    centred = x - x.mean(axis=axes, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(axis=axes, keepdims=True) + epsilon)


def logs(x: Any) -> Any:
    most = x.max(axis=-1, keepdims=True)
    return x - most - np.log(np.exp(x - most).sum(axis=-1, keepdims=True))


SMALL = 2.0**-12  # brings sums back into the range of float16
LONG = {
    "InstanceNormalization": lambda x: normal(x, (2, 3)),
    "GroupNormalization": lambda x: normal(x.reshape(1, 1, -1), (2,)).reshape(x.shape),
    "LayerNormalization": lambda x: normal(x, (3,)),
    "RMSNormalization": lambda x: x / np.sqrt(np.square(x).mean(axis=3, keepdims=True) + 1e-5),
    "MeanVarianceNormalization": lambda x: normal(x, (0, 2, 3), 0),
    "LpNormalization": lambda x: x / np.sqrt(np.square(x).sum(axis=3, keepdims=True)),
    "ReduceMean": lambda x: x.mean(axis=(2, 3), keepdims=True),
    "ReduceSum": lambda x: x.sum(axis=(2, 3), keepdims=True) * SMALL,
    "ReduceL2": lambda x: np.sqrt(np.square(x).sum(axis=(2, 3), keepdims=True)) * SMALL,
    "GlobalAveragePool": lambda x: x.mean(axis=(2, 3), keepdims=True),
    "LogSoftmax": logs,
    "Softmax": lambda x: np.exp(logs(x)),
}


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("name", LONG)
def test_long_sums_against_float64(name, half):
    """Maps of 65,536 numbers about 512: float16 holds neither a square nor a sum of two hundred."""
    kind = HALVES[half]
    x = (512 + rng.integers(-64, 65, (1, 2, 16, 4096))).astype(np.float32).astype(kind)
    if name in ("Softmax", "LogSoftmax"):
        x = (x.astype(np.float32) / 64).astype(kind)
    ones, zeros = np.ones(2 if name[0] in "IG" else 4096, kind), np.zeros(2 if name[0] in "IG" else 4096, kind)
    more = {"LayerNormalization": [ones, zeros], "RMSNormalization": [ones], "InstanceNormalization": [ones, zeros],
            "GroupNormalization": [ones, zeros]}  # fmt: skip
    inputs = [x, *more.get(name, [integers(2, 3)] if name.startswith("Reduce") else [])]
    model, feeds = built(name, inputs, {"num_groups": 1} if name[:5] == "Group" else {}, LATEST)
    if name in ("ReduceSum", "ReduceL2"):
        model.graph.node.append(helper.make_node("Mul", ["o0", "small"], ["o1"]))
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(SMALL).astype(kind), "small"))
        model.graph.output[0].name = "o1"
    got = InferenceSession(model).run(None, feeds)[0].astype(np.float64)
    wanted = LONG[name](x.astype(np.float64))
    unit = 2.0**-11 if half == "float16" else 2.0**-8
    np.testing.assert_allclose(got, wanted, rtol=1.1 * unit, atol=1e-6)


# ---- between operators -----------------------------------------------------------------------------------------------


def chain(nodes: list[Any], x: Any, outputs: dict[str, int], constants: dict[str, Any], **options: Any) -> list[Any]:
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        nodes, "chain", [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info(name, code, None) for name, code in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return InferenceSession(model, **options).run(None, {"x": x})


make = helper.make_node


@pytest.mark.parametrize("optimise", [True, False])
def test_a_normalisation_spelled_out(optimise):
    """Squares between operators are beyond float16, as in ONNX Runtime they may be."""
    x = np.array([[512, -512, 300, 2]], np.float16)
    nodes = [
        make("Pow", ["x", "two"], ["a"]), make("ReduceMean", ["a"], ["b"]), make("Add", ["b", "e"], ["c"]),
        make("Sqrt", ["c"], ["d"]), make("Div", ["x", "d"], ["y"]),
    ]  # fmt: skip
    constants = {"two": np.float16(2), "e": np.float16(1e-3)}
    (y,) = chain(nodes, x, {"y": 10}, constants, optimise=optimise)
    wide = x.astype(np.float64)
    wanted = wide / np.sqrt(np.square(wide).mean() + float(np.float16(1e-3)))
    assert y.dtype == np.float16 and np.array_equal(y, wanted.astype(np.float16))


@pytest.mark.parametrize("optimise", [True, False])
def test_what_leaves_the_graph_is_rounded(optimise):
    """An output is of its type, though others go on with what was not rounded; a graph's own conversions round."""
    x = np.array([300, 2], np.float16)
    nodes = [
        make("Mul", ["x", "x"], ["a"]), make("Sqrt", ["a"], ["b"]), make("IsInf", ["a"], ["c"]),
        make("Cast", ["third"], ["d"], to=10), make("Cast", ["d"], ["e"], to=1),
        make("CastLike", ["third", "x"], ["f"]),
        make("Identity", ["x"], ["g"]), make("Identity", ["k"], ["h"]), make("Cast", ["k"], ["i"], to=16),
    ]  # fmt: skip
    outputs = {"a": 10, "b": 10, "c": 9, "d": 10, "e": 1, "f": 10, "g": 10, "h": 10, "i": 16}
    constants = {"third": np.array([1 / 3], np.float32), "k": np.array([1 / 3], np.float16)}
    a, b, c, d, e, f, g, h, i = chain(nodes, x, outputs, constants, optimise=optimise)
    assert a.tolist() == [np.inf, 4] and b.tolist() == [300, 2] and c.tolist() == [True, False]
    assert e.dtype == np.float32 and e[0] == np.float32(np.float16(1 / 3)) and d[0] == f[0] == np.float16(1 / 3)
    assert g.dtype == h.dtype == f.dtype == np.float16 and np.array_equal(g, x) and np.array_equal(h, constants["k"])
    assert i.dtype == HALVES["bfloat16"] and float(i[0]) == float(constants["k"].astype(HALVES["bfloat16"])[0])


def test_types_that_follow_attributes():
    """Constants of a shape, unit matrices, bits and quantised values of 16-bit floats."""
    x = np.array([[1, 2], [3, 300]], np.float16)
    nodes = [
        make("Shape", ["x"], ["s"]), make("EyeLike", ["x"], ["eye"]),
        make("ConstantOfShape", ["s"], ["full"], value=onnx.numpy_helper.from_array(np.array([0.1], np.float16))),
        make("MatMul", ["x", "eye"], ["m"]), make("Add", ["m", "full"], ["y"]),
        make("Constant", [], ["c"], value=onnx.numpy_helper.from_array(np.array([2], np.float16))),
        make("Mul", ["y", "c"], ["z"]), make("DequantizeLinear", ["q", "c0"], ["dq"]), make("Mul", ["dq", "x"], ["w"]),
    ]  # fmt: skip
    constants = {"q": np.array([3, -3], np.int8), "c0": np.float16(0.1)}
    y, z, w = chain(nodes, x, {"y": 10, "z": 10, "w": 10}, constants)
    tenth = np.float32(np.float16(0.1))
    assert np.array_equal(y, (x.astype(np.float32) + tenth).astype(np.float16))
    assert np.array_equal(z, ((x.astype(np.float32) + tenth) * 2).astype(np.float16))
    assert np.array_equal(w, (np.float32([3, -3]) * tenth * x.astype(np.float32)).astype(np.float16))


def test_an_array_that_is_no_float_of_16_bits_stays():
    """uint16, and float16 beside float32 where the standard lets them meet."""
    x = np.array([60000, 1], np.uint16)
    graph = helper.make_graph(
        [make("Add", ["x", "x"], ["y"])], "g", [helper.make_tensor_value_info("x", 4, [2])],
        [helper.make_tensor_value_info("y", 4, None)],
    )  # fmt: skip
    session = InferenceSession(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert session.run(None, {"x": x})[0].tolist() == [(120000) % 65536, 2]
    (y,) = chain([make("Pow", ["x", "e"], ["y"])], np.array([4, 9], np.float16), {"y": 10}, {"e": np.float32(0.5)})
    assert y.dtype == np.float16 and y.tolist() == [2, 3]
