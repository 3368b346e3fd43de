"""`fastconv.quantized` bit for bit: against its reference, and against ONNX Runtime where that is installed.

A tenth of FASTCONV_TEST_CASES generated cases: 200000 of them run 20,000 here.
"""

import inspect
import pickle
from typing import Any

import numpy as np
import pytest
from settings import COUNT

import fastconv
from fastconv import ConvError, ConvTypeError, _native, quantized, reference
from fastconv._core.geometry import conv_geometry
from fastconv._core.quantised import QuantisedPlan

CASES = max(30, COUNT // 10)
FORMATS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}
BYTES = (np.int8, np.uint8)


def integers(rng: np.random.Generator, shape: Any, dtype: Any) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def a_zero(rng: np.random.Generator, dtype: Any, size: int | None = None) -> Any:
    """A zero point, the ends of the range among them, as people write one: a NumPy integer, or an int."""
    if size is not None:
        return integers(rng, size, dtype)
    info = np.iinfo(dtype)
    value = int(rng.choice([info.min, info.max, 0, int(rng.integers(info.min, info.max + 1))]))
    return [value, np.array(value, dtype), np.array([value], dtype)][rng.integers(3)]


def a_scale(rng: np.random.Generator, size: int | None = None) -> Any:
    return np.exp2(rng.uniform(-9, 1, size)).astype(np.float32) if size else np.float32(np.exp2(rng.uniform(-9, 1)))


def scales(rng: np.random.Generator, x: np.ndarray, w: np.ndarray, channels: int, terms: int) -> list[Any]:
    """input scale .. output zero point, such that results fill their range, leave it, or are all small."""
    each = channels if rng.random() < 0.5 else None
    ins, weights = a_scale(rng), a_scale(rng, each)
    out = ins * np.max(weights) * np.float32(max(1, terms) ** 0.5 * 50 * np.exp2(rng.uniform(-2, 3)))
    kind = rng.choice(np.array(["i", "b", "B"]))
    zero: Any = int(np.iinfo(x.dtype).min) + 100
    if kind != "i":
        zero = np.asarray(a_zero(rng, np.dtype(str(kind)))).astype(str(kind))
    zeros = a_zero(rng, w.dtype, each if rng.random() < 0.5 else None)
    return [ins, a_zero(rng, x.dtype), w, weights, zeros, np.float32(out), zero]


def a_convolution(number: int) -> tuple[int, tuple[Any, ...], dict[str, Any]]:
    """The axes, the arguments and the options of a call."""
    rng = np.random.default_rng([18, number])
    axes = int(rng.choice([1, 2, 2, 2, 3]))
    groups = int(rng.choice([1, 1, 2, 3]))
    inputs, outputs = int(rng.integers(1, 6)), int(rng.integers(1, 6))
    if rng.random() < 0.2:  # depthwise
        groups, inputs, outputs = int(rng.integers(2, 20)), 1, int(rng.integers(1, 3))
    size = tuple(int(n) for n in rng.integers(4, 12 if axes < 3 else 7, axes))
    kernel = tuple(int(n) for n in rng.integers(1, 4, axes))
    stride = tuple(int(n) for n in rng.integers(1, 4, axes))
    dilation = tuple(int(n) for n in rng.integers(1, 3, axes)) if rng.random() < 0.3 else 1
    sides = tuple((int(a), int(b)) for a, b in rng.integers(-1, 3, (axes, 2)))
    padding: Any = rng.choice(np.array([0, 1, 2, 3, 4]))
    padding = [0, 1, sides, "same", "valid"][padding]
    reach = [(k - 1) * (2 if dilation != 1 else 1) + 1 for k in kernel]
    if any(n - 2 < e for n, e in zip(size, reach, strict=True)):
        padding = "same"
    x = integers(rng, (int(rng.integers(0, 4)), groups * inputs, *size), rng.choice(np.array(BYTES)))
    w = integers(rng, (groups * outputs, inputs, *kernel), rng.choice(np.array(BYTES)))
    bias = rng.integers(-20000, 20000, len(w)).astype(np.int32) if rng.random() < 0.6 else None
    data_format = str(rng.choice(FORMATS[axes]))
    own = [x, *scales(rng, x, w, len(w), inputs * int(np.prod(kernel)))]
    if data_format.endswith("C"):
        own[0] = np.ascontiguousarray(np.moveaxis(x, 1, -1))
        own[3] = np.ascontiguousarray(np.moveaxis(w, (0, 1), (-1, -2)))
    options = {"data_format": data_format, "activation": rng.choice(np.array([None, None, "relu", "relu6"]))}
    return axes, (*own, bias, stride, padding, dilation, groups), options


def a_dense(number: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    rng = np.random.default_rng([19, number])
    inputs, outputs = int(rng.integers(1, 70)), int(rng.integers(1, 40))
    lead = tuple(int(n) for n in rng.integers(0, 6, int(rng.integers(0, 3))))
    x = integers(rng, (*lead, inputs), rng.choice(np.array(BYTES)))
    w = integers(rng, (outputs, inputs), rng.choice(np.array(BYTES)))
    bias = rng.integers(-20000, 20000, outputs).astype(np.int32) if rng.random() < 0.6 else None
    options = {"activation": rng.choice(np.array([None, None, "relu", "relu6"]))}
    return (x, *scales(rng, x, w, outputs, inputs), bias), options


@pytest.mark.parametrize("part", range(3))
def test_every_byte_is_that_of_the_reference(part: int) -> None:
    rng = np.random.default_rng(part)
    for number in range(part, CASES, 3):
        axes, arguments, options = a_convolution(number)
        name = f"conv{axes}d"
        wanted = getattr(reference.quantized, name)(*arguments, **options)
        threads = int(rng.integers(1, 3))
        got = getattr(quantized, name)(*arguments, **options, num_threads=threads)
        assert got.dtype == wanted.dtype and got.shape == wanted.shape, number
        assert np.array_equal(got, wanted), number
        out = np.empty((*wanted.shape, 2), wanted.dtype)[..., 0]
        assert getattr(quantized, name)(*arguments, **options, out=out) is out and np.array_equal(out, wanted), number


def test_every_byte_of_dense_layers_is_that_of_the_reference() -> None:
    for number in range(CASES // 3):
        arguments, options = a_dense(number)
        wanted = reference.quantized.linear(*arguments, **options)
        got = quantized.linear(*arguments, **options)
        assert got.dtype == wanted.dtype and np.array_equal(got, wanted), number
        out = np.empty_like(wanted)
        assert quantized.linear(*arguments, **options, out=out) is out and np.array_equal(out, wanted), number


# ---- ONNX Runtime --------------------------------------------------------------------------------------------------


def runtime(op_type: str, inputs: dict[str, Any], **attributes: Any) -> np.ndarray:
    """One operator by ONNX Runtime."""
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    helper = onnx.helper
    first = next(iter(inputs))
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in inputs.items()}
    zero = inputs["y_zero"]
    graph = helper.make_graph(
        [helper.make_node(op_type, list(inputs), ["y"], **attributes)], "one",
        [helper.make_tensor_value_info(first, kinds[first], inputs[first].shape)],
        [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(zero.dtype), None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in inputs.items() if name != first],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {first: inputs[first]})[0]
    return found


def operands(arguments: tuple[Any, ...]) -> dict[str, np.ndarray]:
    """The inputs of QLinearConv and QLinearMatMul; all zero points in arrays of the types that they belong to."""
    x, ins, in_zero, w, weights, w_zero, outs, out_zero = arguments[:8]
    out_type = getattr(out_zero, "dtype", x.dtype)
    return {
        "x": x, "x_scale": np.float32(ins).reshape(()), "x_zero": np.asarray(in_zero).astype(x.dtype).reshape(()),
        "w": w, "w_scale": np.asarray(weights, np.float32), "w_zero": np.asarray(w_zero).astype(w.dtype),
        "y_scale": np.float32(outs).reshape(()), "y_zero": np.asarray(out_zero).astype(out_type).reshape(()),
    }  # fmt: skip


def each_channel(inputs: dict[str, np.ndarray], channels: int) -> None:
    for name in ("w_scale", "w_zero"):
        inputs[name] = np.broadcast_to(inputs[name].reshape(-1), channels).copy()


def test_convolutions_are_those_of_onnx_runtime() -> None:
    pytest.importorskip("onnxruntime")
    compared = 0
    for number in range(CASES // 2):
        axes, arguments, _ = a_convolution(number)
        x, w, bias, stride, padding, dilation, groups = arguments[0], arguments[3], *arguments[8:]
        out_type = getattr(arguments[7], "dtype", x.dtype)
        # Its kernels take results of the input's type, and symmetric or equal zero points of weights alone.
        zeros = np.unique(np.asarray(arguments[5]))
        if len(x) == 0 or padding == "same" or out_type != x.dtype or (x.dtype == np.int8 and w.dtype != np.int8):
            continue
        if len(zeros) > 1 or (w.dtype == np.int8 and zeros[0] != 0):
            arguments = (*arguments[:5], 0 if w.dtype == np.int8 else int(zeros[0]), *arguments[6:])
        g_format = FORMATS[axes][0]
        inputs = operands(arguments)
        x_own, w_own = x, w
        if x.shape[-1] == w.shape[-2] * groups and x.ndim == axes + 2 and is_last(axes, number):
            x_own, w_own = np.moveaxis(x, -1, 1), np.moveaxis(w, (-1, -2), (0, 1))
        inputs["x"], inputs["w"] = np.ascontiguousarray(x_own), np.ascontiguousarray(w_own)
        each_channel(inputs, len(w_own))
        sides = {0: ((0, 0),) * axes, 1: ((1, 1),) * axes, "valid": ((0, 0),) * axes}.get(padding, padding)
        if any(side < 0 for pair in sides for side in pair):
            continue
        if bias is not None:
            inputs["bias"] = bias
        wanted = runtime(
            "QLinearConv", inputs, strides=list(stride), group=groups,
            dilations=[dilation] * axes if dilation == 1 else list(dilation),
            pads=[sides[axis][end] for end in (0, 1) for axis in range(axes)],
        )  # fmt: skip
        got = getattr(quantized, f"conv{axes}d")(
            inputs["x"], *arguments[1:3], inputs["w"], *arguments[4:8], bias, stride, padding, dilation, groups,
            data_format=g_format,
        )  # fmt: skip
        assert got.dtype == wanted.dtype and np.array_equal(got, wanted), number
        compared += 1
    assert compared > CASES // 20


def is_last(axes: int, number: int) -> bool:
    return str(a_convolution(number)[2]["data_format"]) == FORMATS[axes][1]


def test_dense_layers_are_those_of_onnx_runtime() -> None:
    pytest.importorskip("onnxruntime")
    compared = 0
    for number in range(CASES // 4):
        arguments, _ = a_dense(number)
        x, w = arguments[0], arguments[3]
        out_type = getattr(arguments[7], "dtype", x.dtype)
        if x.ndim < 2 or not x.size or out_type != x.dtype or (x.dtype == np.int8 and w.dtype != np.int8):
            continue
        inputs = operands(arguments)
        inputs["w"] = np.ascontiguousarray(w.T)
        each_channel(inputs, len(w))
        names = {"x": "a", "x_scale": "as", "x_zero": "az"}
        wanted = runtime("QLinearMatMul", {names.get(name, name): array for name, array in inputs.items()})
        got = quantized.linear(*arguments[:8])
        assert got.dtype == wanted.dtype and np.array_equal(got, wanted), number
        compared += 1
    assert compared > CASES // 40


# ---- by hand -------------------------------------------------------------------------------------------------------


def one(**changed: Any) -> dict[str, Any]:
    """The arguments of a small call."""
    given: dict[str, Any] = {
        "input": np.full((1, 2, 4, 4), 5, np.uint8), "input_scale": 0.1, "input_zero_point": 1,
        "weight": np.full((3, 2, 3, 3), 2, np.int8), "weight_scale": [0.1, 0.2, 0.3], "weight_zero_point": 0,
        "output_scale": 0.5, "output_zero_point": 3,
    }  # fmt: skip
    return {**given, **changed}


def test_halves_go_to_even_and_results_stay_in_range() -> None:
    x = np.arange(-6, 6, dtype=np.int8).reshape(1, 1, 12)
    w = np.ones((1, 1, 1), np.int8)
    wanted = np.array([-3, -2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2], np.int8) + 7  # -6 / 2, -5 / 2 to even, ..
    assert np.array_equal(quantized.conv1d(x, 1, 0, w, 1, 0, 2, 7)[0, 0], wanted)
    ends = quantized.conv1d(x, 1000, 0, w, 1, 0, 1, np.uint8(9))
    assert ends.dtype == np.uint8 and ends[0, 0].tolist() == [0] * 6 + [9] + [255] * 5
    relu6 = quantized.conv1d(x, 1, 0, w, 1, 0, 0.7, np.int8(-100), activation="relu6")
    assert relu6[0, 0].tolist() == [-100] * 7 + [-99, -97, -96, -94, -93] and relu6.max() <= -100 + round(6 / 0.7)


def test_padding_stands_for_zero() -> None:
    arguments = one(padding=1)
    x = np.pad(arguments["input"], ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=1)
    assert np.array_equal(quantized.conv2d(**arguments), quantized.conv2d(**one(input=x)))


def test_the_type_of_the_result_is_that_of_its_zero_point() -> None:
    assert quantized.conv2d(**one()).dtype == np.uint8
    assert quantized.conv2d(**one(output_zero_point=np.int64(3))).dtype == np.uint8
    assert quantized.conv2d(**one(output_zero_point=np.int8(3))).dtype == np.int8
    assert quantized.conv2d(**one(output_zero_point=np.array([3], np.int8))).dtype == np.int8


def test_forms_of_input() -> None:
    wanted = quantized.conv2d(**one())
    assert np.array_equal(quantized.conv2d(**one(input=one()["input"][0])), wanted[0])
    flipped = np.ascontiguousarray(one()["input"][..., ::-1])[..., ::-1]
    assert np.array_equal(quantized.conv2d(**one(input=flipped)), wanted)
    last = np.ascontiguousarray(one()["input"].transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    found = quantized.conv2d(**one(input=last))
    assert np.array_equal(found, wanted) and found.transpose(0, 2, 3, 1).flags.c_contiguous
    memory = np.full((1, 2, 4, 4), 5, np.uint8)  # the result over its own input
    quantized.conv2d(**one(input=memory, weight=np.full((2, 2, 1, 1), 2, np.int8), weight_scale=0.1, out=memory))
    assert np.array_equal(memory, np.full((1, 2, 4, 4), round(4 * 2 * 2 * 0.01 / 0.5) + 3))


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d", "linear"])
def test_signatures_are_those_of_the_reference(name: str) -> None:
    def words(function: Any) -> list[tuple[str, Any, Any]]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    own = words(getattr(quantized, name))
    assert own == words(getattr(reference.quantized, name))
    first = "input input_scale input_zero_point weight weight_scale weight_zero_point output_scale output_zero_point"
    assert [word for word, *_ in own][:9] == [*first.split(), "bias"]


NAN, INF = float("nan"), float("inf")
WRONG: list[tuple[str, Any, type[Exception]]] = [
    *((f"{which}_scale", value, ConvError) for which in ("input", "weight", "output")
      for value in (0, 0.0, -1.0, NAN, INF, -INF, 1e-60, 1e60, [1.0, 2.0], np.ones((3, 1)), [])),
    *((f"{which}_scale", value, ConvTypeError) for which in ("input", "weight", "output")
      for value in ("1", None, 1j, True)),
    ("weight_scale", [1.0, 2.0, 0.0], ConvError), ("weight_scale", [1.0, NAN, 1.0], ConvError),
    *((f"{which}_zero_point", value, ConvError) for which in ("input", "output") for value in (256, -1, [0, 0])),
    *((f"{which}_zero_point", value, ConvTypeError) for which in ("input", "weight", "output")
      for value in (0.5, "0", None, True)),
    ("weight_zero_point", 128, ConvError), ("weight_zero_point", [0, 0], ConvError),
    ("weight_zero_point", [0, 0, -129], ConvError),
    ("bias", np.zeros(2, np.int32), ConvError), ("bias", np.zeros(3, np.float32), ConvTypeError),
    ("bias", np.full(3, 1 << 31), ConvError), ("activation", "silu", ConvError), ("activation", 3, ConvTypeError),
    ("input", np.zeros((1, 2, 4, 4), np.float32), ConvTypeError),
    ("input", np.zeros((1, 2, 4, 4), np.int16), ConvTypeError),
    ("weight", np.zeros((3, 2, 3, 3), np.int32), ConvTypeError), ("stride", 0, ConvError),
    ("out", np.zeros((1, 3, 2, 2), np.int8), ConvTypeError), ("out", np.zeros((1, 3, 2, 3), np.uint8), ConvError),
]  # fmt: skip


@pytest.mark.parametrize(("argument", "value", "kind"), WRONG)
def test_refusals_name_the_argument(argument: str, value: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=argument):
        quantized.conv2d(**one(**{argument: value}))
    if argument not in ("out", "stride", "input", "weight"):
        x, w = np.zeros((4, 6), np.uint8), np.zeros((3, 6), np.int8)
        with pytest.raises(kind, match=argument):
            quantized.linear(**one(input=x, weight=w, **{argument: value}))
        with pytest.raises(kind, match=argument):
            reference.quantized.linear(**one(input=x, weight=w, **{argument: value}))


def test_a_multiplier_beyond_float32_is_refused() -> None:
    with pytest.raises(ConvError, match="output_scale"):
        quantized.conv2d(**one(input_scale=1e30, output_scale=1e-30))


def test_sums_that_leave_int32_are_refused_and_large_ones_are_exact() -> None:
    x = np.full((1, 40000, 1), 255, np.uint8)
    w = np.full((1, 40000, 1), 255, np.uint8)
    out = np.full((1, 1, 1), 77, np.uint8)
    with pytest.raises(ConvError, match="int32"):
        quantized.conv1d(x, 1, 0, w, 1, 0, 1e8, 0, out=out)
    assert out[0, 0, 0] == 77
    zeros = np.zeros_like(x)
    assert quantized.conv1d(zeros, 1, 0, w, 1, 0, 1e8, 9)[0, 0, 0] == 9


def test_a_matrix_that_does_not_fit() -> None:
    with pytest.raises(ConvError, match=r"weight .*\(3, 5\)"):
        quantized.linear(np.zeros((2, 4), np.int8), 1, 0, np.zeros((3, 5), np.int8), 1, 0, 1, 0)


def test_no_input_channels_give_the_bias() -> None:
    y = quantized.conv2d(
        np.zeros((1, 0, 4, 4), np.int8), 1, 0, np.zeros((2, 0, 3, 3), np.int8), 1, 0, 2, 1, np.array([4, -4], np.int32)
    )
    assert y.shape == (1, 2, 2, 2) and np.all(y[0, 0] == 3) and np.all(y[0, 1] == -1)
    dense = quantized.linear(np.zeros((3, 0), np.int8), 1, 0, np.zeros((2, 0), np.int8), 1, 0, 2, 1, [4, -4])
    assert dense.tolist() == [[3, -1]] * 3


def test_a_plan_gives_sums_takes_any_batch_and_is_pickled() -> None:
    rng = np.random.default_rng(3)
    x, w = integers(rng, (2, 4, 7, 7), np.uint8), integers(rng, (6, 2, 3, 3), np.int8)
    g = conv_geometry(x.shape, w.shape, 1, 1, 1, 2)
    zeros, bias = np.arange(6), np.arange(6) * 1000
    plan = QuantisedPlan(g, w, zeros, x.dtype, 100, bias)
    wanted = fastconv.conv2d(
        x.astype(np.int16) - np.int16(100), w.astype(np.int16) - zeros.astype(np.int16).reshape(-1, 1, 1, 1), bias,
        padding=1, groups=2,
    )  # fmt: skip
    assert plan.run(x).dtype == np.int32 and np.array_equal(plan.run(x), wanted)
    assert np.array_equal(pickle.loads(pickle.dumps(plan)).run(x[:1]), wanted[:1])
    assert "uint8" in str(plan.explain()) and plan.packed_bytes > 0 and plan.shape == (2, 6, 7, 7)
    with pytest.raises(ConvError, match="planned shape"):
        plan.run(x[..., :6])
    with pytest.raises(ConvTypeError, match="uint8"):
        plan.run(x.astype(np.int8))


@pytest.mark.parametrize(("kind", "channels", "data_format"), [
    (np.uint8, 64, "NHWC"), (np.uint8, 64, "NCHW"), (np.uint8, 66, "NHWC"), (np.int8, 64, "NHWC"),
])  # fmt: skip
def test_a_plan_says_whether_it_reads_bytes_where_they_lie(kind: Any, channels: int, data_format: str) -> None:
    """Bytes without a sign, in whole groups of four channels side by side, on machines that multiply them so."""
    g = conv_geometry((1, channels, 7, 7), (8, channels, 1, 1), 1, 0, 1, 1)
    w = np.ones((8, channels, 1, 1), np.int8)
    plan = QuantisedPlan(g, w, np.zeros(1, int), kind, 0, data_format=data_format)
    native = _native.computes(_native.COMPUTES["uint8"])
    lies = native and kind == np.uint8 and channels % 4 == 0 and data_format == "NHWC"
    assert plan.explain().source == ("in place" if lies else "packed region")
