"""Nets quantised by a calibration: `compile_inference(precision="int8")` and sessions; their errors, their report."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from fastconv import ConvError, Sequential, layers, models
from fastconv.graph.quantised import QuantisationReport
from fastconv.losses import SparseCategoricalCrossentropy
from fastconv.optimizers import Adam

RNG = np.random.default_rng(0)


def images(count: int, size: int = 16) -> np.ndarray:
    """Pictures of three kinds: stripes that lie, stripes that stand, chequers; somewhere, with noise."""
    rng = np.random.default_rng(count)
    y, x = np.indices((size, size))
    kinds = rng.integers(0, 3, count)
    patterns = np.stack([np.sin(y * 1.3), np.sin(x * 1.3), np.sin(x * 1.3) * np.sin(y * 1.3)])
    shifted = np.stack([np.roll(patterns[k], rng.integers(0, size, 2), (0, 1)) for k in kinds])
    coloured = shifted[..., None] * rng.uniform(0.5, 1.5, (count, 1, 1, 3))
    return (coloured + 0.3 * rng.standard_normal(coloured.shape)).astype(np.float32)


def labels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 3, count)


@pytest.fixture(scope="module")
def trained() -> Sequential:
    """A net that tells them apart: convolutions, a residual block, a depthwise one, normalisations, functions."""
    body = [
        layers.Conv2D(8, 3, padding="same", use_bias=False), layers.BatchNormalization(), layers.ReLU(),
        layers.Conv2D(8, 1), layers.BatchNormalization(),
    ]  # fmt: skip
    net = Sequential([
        layers.Conv2D(8, 3, padding="same", activation="relu"), layers.MaxPooling2D(), layers.Residual(body),
        layers.DepthwiseConv2D(3, padding="same"), layers.BatchNormalization(), layers.Activation("hardswish"),
        layers.Conv2D(16, 1, activation="silu"), layers.AveragePooling2D(), layers.GlobalAveragePooling2D(),
        layers.Dense(3),
    ], (16, 16, 3), seed=0)  # fmt: skip
    net.compile(Adam(0.005), SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
    net.fit(images(384), labels(384), 16, 10, verbose=0, seed=0)
    return net


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_a_trained_net_loses_little(trained: Sequential, method: str) -> None:
    plan: Any = trained.compile_inference(precision="int8", calibration=images(64), calibration_method=method)
    x, y = images(300), labels(300)
    report = plan.report(x, y)
    assert report.float_accuracy > 0.95 and abs(report.lost) <= 0.5 and report.agreement > 0.99
    assert report.samples == 300 and min(layer.sqnr for layer in report.layers) > 20
    found, wanted = plan.run(x), trained.predict(x)
    assert np.mean(found.argmax(1) == y) == report.accuracy
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.05 * np.std(wanted)
    done = [step["how"] for step in plan.steps]
    assert sum("uint8" in (how or "") for how in done) >= 7 and "uint8" in plan.explain()
    kinds = {node.op_type for node in plan._prepared.graph.nodes}
    assert kinds <= {"QuantizeLinear", "QConv", "QDense", "QBinary", "QTable", "QMean", "QAveragePool", "MaxPool",
                     "Transpose", "Flatten"}  # fmt: skip


def test_the_report_names_layers(trained: Sequential) -> None:
    plan: Any = trained.compile_inference(precision="int8", calibration=images(32))
    report: QuantisationReport = plan.report()
    assert report.samples == 32 and report.accuracy is report.lost is None
    text = str(report)
    assert "SQNR dB" in text and "conv2d" in text and "batch_normalization" in text and "32 samples" in text
    last = report.layers[-1]
    assert last.operators.startswith("dense") and last.range[0] < last.range[1] and last.largest > 0
    with_labels = plan.report(images(20), labels(20))
    assert with_labels.lost is not None and "points lost" in str(with_labels)


def test_batches_and_copies_have_the_same_bits(trained: Sequential) -> None:
    plan: Any = trained.compile_inference(precision="int8", calibration=images(16))
    x = images(9)
    whole = plan.run(x)
    assert np.array_equal(np.concatenate([plan.run(one[None]) for one in x]), whole)
    assert np.array_equal(plan.run(x), whole)
    for other in (copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        assert np.array_equal(other.run(x), whole)
        with pytest.raises(ConvError, match="x must hold the samples"):
            other.report()
        assert other.report(x).samples == 9
    assert plan.run(x[:0]).shape == (0, 3)
    assert plan.profile(x, 1).seconds > 0 and repr(plan).startswith("<QuantisedInferencePlan of")


def test_weights_that_change_are_seen() -> None:
    net = Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)], (6, 6, 2), seed=1)
    plan: Any = net.compile_inference(precision="int8", calibration=RNG.standard_normal((8, 6, 6, 2)))
    assert plan.current
    net.set_weights([weight * 2 for weight in net.get_weights()])
    assert not plan.current
    with pytest.raises(ConvError, match="no longer has"):
        copy.copy(plan)


def test_volumes_signals_and_odd_nets() -> None:
    """One and three axes, channels first, a net that starts with Dense, one without a convolution."""
    nets = [
        Sequential([layers.Conv1D(8, 5, padding="same", activation="relu"), layers.GlobalAveragePooling1D(),
                    layers.Dense(4)], (20, 3), seed=0),
        Sequential([layers.Conv3D(4, 3, activation="relu6"), layers.Flatten(), layers.Dense(2)], (5, 6, 5, 2), seed=0),
        Sequential([layers.Dense(8, activation="relu"), layers.Dense(3), layers.Softmax()], (12,), seed=0),
        Sequential([layers.Conv2D(4, 3, data_format="channels_first")], (2, 8, 8), seed=0),
        Sequential([layers.Conv2DTranspose(4, 2, strides=2), layers.Conv2D(3, 1)], (5, 5, 4), seed=0),
        Sequential([layers.Flatten()], (4, 4), seed=0),
    ]  # fmt: skip
    for net in nets:
        assert net.built_shape is not None
        x = RNG.standard_normal((24, *net.built_shape)).astype(np.float32)
        plan: Any = net.compile_inference(precision="int8", calibration=x)
        wanted = net.predict(x)
        assert np.abs(plan.run(x) - wanted).max() <= 0.05 * np.abs(wanted).max(), net.layers
        assert plan.report().layers or len(net.layers) == 1


def test_channels_of_different_size_are_made_alike() -> None:
    """Between convolutions a channel many times smaller keeps its bits, through Relu and its limit at 6."""
    net = Sequential([
        layers.Conv2D(8, 1, activation="relu6"), layers.DepthwiseConv2D(3, activation="relu"), layers.Conv2D(4, 1),
    ], (9, 9, 3), seed=3)  # fmt: skip
    first, second, third = (layer.get_weights() for layer in net.layers)
    sizes = np.float32(10) ** -np.arange(0, 1.6, 0.2, np.float32)
    net.layers[0].set_weights([first[0] * sizes, first[1]])
    net.layers[2].set_weights([third[0] / sizes.reshape(-1, 1), third[1]])
    x = RNG.standard_normal((32, 9, 9, 3)).astype(np.float32)
    plan: Any = net.compile_inference(precision="int8", calibration=x)
    assert plan.report().layers[-1].sqnr > 25
    assert len(second) == 2


MNIST = Sequential([layers.Conv2D(4, 3), layers.GlobalAveragePooling2D()], (8, 8, 1), seed=0)
GOOD = RNG.standard_normal((4, 8, 8, 1)).astype(np.float32)
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"precision": "int8"}, "calibration must hold sample inputs"),
    ({"precision": "int8", "calibration": GOOD[:0]}, "calibration .*empty"),
    ({"precision": "int8", "calibration": []}, "calibration must have the shape"),
    ({"precision": "int8", "calibration": np.full_like(GOOD, 0.5)}, r"calibration .*all values are 0.5"),
    ({"precision": "int8", "calibration": GOOD * np.nan}, "calibration must be finite"),
    ({"precision": "int8", "calibration": np.where(GOOD > 0, np.inf, GOOD)}, "calibration must be finite"),
    ({"precision": "int8", "calibration": GOOD[:, :7]}, r"calibration must have the shape \(samples, 8, 8, 1\)"),
    ({"precision": "int8", "calibration": GOOD[0]}, "calibration must have the shape"),
    ({"precision": "int8", "calibration": "images"}, "calibration must be an array"),
    ({"precision": "int8", "calibration": {"other": GOOD}}, "calibration must hold the inputs"),
    ({"precision": "int8", "calibration": GOOD, "calibration_method": "best"}, "calibration_method must be one of"),
    ({"calibration": GOOD}, "calibration is for precision='int8'"),
    ({"precision": "int4", "calibration": GOOD}, "precision must be"),
]


@pytest.mark.parametrize(("options", "text"), WRONG)
def test_refusals_name_the_argument(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConvError, match=text):
        MNIST.compile_inference(**options)


def test_labels_that_do_not_fit() -> None:
    plan: Any = MNIST.compile_inference(precision="int8", calibration=GOOD)
    with pytest.raises(ConvError, match="labels must be 4 integers"):
        plan.report(GOOD, [1, 2, 3])
    with pytest.raises(ConvError, match="labels must be 4 integers"):
        plan.report(GOOD, [1.0, 2, 3, 4])
    with pytest.raises(ConvError, match="x must hold the samples"):
        plan.report(labels=[1])
    for wrong in ([0, 1, 2, 99], [0, -1, 1, 1]):
        with pytest.raises(ConvError, match="labels must be classes from 0 to"):
            plan.report(GOOD, wrong)


def test_double_precision_is_refused() -> None:
    net = Sequential([layers.Conv2D(4, 3, dtype="float64")], (8, 8, 1), seed=0)
    with pytest.raises(ConvError, match="takes a float32 model"):
        net.compile_inference(precision="int8", calibration=GOOD)


def test_residual_nets_are_in_bytes_throughout() -> None:
    net = models.resnet(18, 10, (32, 32, 3), seed=0)
    x = RNG.standard_normal((8, 32, 32, 3)).astype(np.float32)
    plan: Any = net.compile_inference(precision="int8", calibration=x)
    nodes = plan._prepared.graph.nodes
    done = [node.op_type for node in nodes]
    assert done.count("QConv") == 20 and "QBinary" not in done and "Conv" not in done
    assert sum("added" in node.attributes for node in nodes) == 8
    assert plan.report().layers[-1].sqnr > 15
    packed = sum(step["packed_bytes"] for step in plan.steps)
    assert packed <= 2.2 * net.count_params()


# ---- models from files ----------------------------------------------------------------------------------------------


def test_a_session_quantises() -> None:
    pytest.importorskip("onnx")
    from bridges.test_onnx_integers import float_net

    from fastconv.onnx import InferenceSession, OnnxError

    built = float_net()
    x = RNG.standard_normal((24, 3, 32, 32)).astype(np.float32)
    plain = InferenceSession(built).run(None, {"x": x})[0]
    for given, method in ((x, "minmax"), ({"x": x}, "percentile")):
        session = InferenceSession(built, precision="int8", calibration=given, calibration_method=method)
        found = session.run(None, {"x": x})[0]
        noise = 10 * np.log10(np.sum(plain**2) / np.sum((found - plain) ** 2))
        report = session.report()
        assert noise > 25 and min(layer.sqnr for layer in report.layers) > 20 and report.agreement == 1
        done = {node.op_type for node in session._graph.nodes}
        assert not {"Conv", "Dense", "Gemm", "Elementwise"} & done
    labelled = session.report({"x": x}, plain.argmax(1))
    assert labelled.float_accuracy == 1 and labelled.accuracy == 1
    for options, text in (
        ({"precision": "int8"}, "calibration"), ({"calibration": x}, "precision='int8'"),
        ({"precision": "int8", "calibration": x[:, :2]}, "calibration must have the shape"),
        ({"precision": "int8", "calibration": {"y": x}}, "calibration must hold the inputs x"),
    ):  # fmt: skip
        with pytest.raises(ConvError, match=text):
            InferenceSession(built, **options)
    with pytest.raises(OnnxError, match="int8"):
        InferenceSession(built).report()


def test_weights_that_are_not_finite_stay_in_floats() -> None:
    net = Sequential([layers.Conv2D(4, 3), layers.Conv2D(4, 3)], (8, 8, 1), seed=0)
    kernel, bias = net.layers[0].get_weights()
    kernel[0, 0, 0, 1] = np.nan
    net.layers[0].set_weights([kernel, bias])
    plan: Any = net.compile_inference(precision="int8", calibration=GOOD)
    assert np.isnan(plan.run(GOOD)).all()


@pytest.mark.parametrize("batch", [1, 5, 40])
def test_a_model_of_a_fixed_batch_is_calibrated_by_it(batch: int) -> None:
    """Which a constant shape inside it asks for."""
    onnx = pytest.importorskip("onnx")
    from onnx_models import model

    from fastconv.onnx import InferenceSession

    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((4, 3, 3, 3)).astype(np.float32), "to": np.array([batch, 64]),
        "fc": rng.standard_normal((64, 5)).astype(np.float32),
    }  # fmt: skip
    make = onnx.helper.make_node
    nodes = [make("Conv", ["x", "w"], ["a"]), make("Relu", ["a"], ["b"]), make("Reshape", ["b", "to"], ["c"]),
             make("MatMul", ["c", "fc"], ["y"])]  # fmt: skip
    built = model(onnx, nodes, {"x": [batch, 3, 6, 6]}, {"y": [batch, 5]}, constants)
    x = rng.standard_normal((3 * batch, 3, 6, 6)).astype(np.float32)
    session = InferenceSession(built, precision="int8", calibration=x)
    whole, exact = (one.run(None, {"x": x[:batch]})[0] for one in (session, InferenceSession(built)))
    assert np.abs(whole - exact).max() < 0.05 * np.abs(exact).max()
    assert session.report().samples == {1: 3, 5: 15, 40: 40}[batch]
    if batch > 1:
        with pytest.raises(ConvError, match=f"a multiple of {batch} samples"):
            InferenceSession(built, precision="int8", calibration=x[1:])


def test_what_a_session_is_told_holds_of_bytes_too() -> None:
    pytest.importorskip("onnx")
    from bridges.test_onnx_integers import float_net

    from fastconv.onnx import InferenceSession, OnnxError

    x = RNG.standard_normal((4, 3, 32, 32)).astype(np.float32)
    told: dict[str, Any] = {"precision": "int8", "calibration": x}
    wanted = InferenceSession(float_net(), **told).run(None, {"x": x})[0]
    for options in ({"quantized": "exact"}, {"optimise": False}, {"optimise": False, "quantized": "exact"}):
        session = InferenceSession(float_net(), **told, **options)
        done = {node.op_type for node in session._graph.nodes}
        assert not {"QConv", "QDense"} & done
        assert ("Relu" in done) == ("optimise" in options)
        np.testing.assert_allclose(session.run(None, {"x": x})[0], wanted, atol=0.1)
        assert session.report().layers[-1].sqnr > 20
    with pytest.raises(OnnxError, match="max_value_bytes"):
        InferenceSession(float_net(), **told, max_value_bytes=1000)


def test_no_more_of_a_calibration_is_kept_than_a_report_reads() -> None:
    net, x = Sequential([layers.Dense(2)], (3,), seed=0), np.random.default_rng(0).random((999, 3), np.float32)
    plan: Any = net.compile_inference(precision="int8", calibration=x)
    (kept,) = plan._calibrated._feeds.values()
    assert len(kept) == plan._calibrated.samples == 32 and not np.may_share_memory(kept, x)


def test_new_constants_take_no_names_of_values() -> None:
    """Of weights that were made alike between two convolutions."""
    onnx = pytest.importorskip("onnx")
    from onnx_models import model

    from fastconv.onnx import InferenceSession

    rng = np.random.default_rng(0)
    constants = {name: rng.standard_normal((4, 4, 1, 1)).astype(np.float32) for name in ("w1", "w2")}
    constants["w1"][0] *= 9
    make = onnx.helper.make_node
    nodes = [make("Conv", ["x", "w1"], ["w1'"]), make("Relu", ["w1'"], ["w2'"]), make("Conv", ["w2'", "w2"], ["y"])]
    built = model(onnx, nodes, {"x": ["n", 4, 5, 5]}, {"y": ["n", 4, 5, 5]}, constants)
    x = rng.standard_normal((8, 4, 5, 5)).astype(np.float32)
    found, wanted = (
        InferenceSession(built, **told).run(None, {"x": x})[0]
        for told in ({"precision": "int8", "calibration": x}, {})
    )
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
